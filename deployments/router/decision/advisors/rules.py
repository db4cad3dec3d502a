"""The operator's rules as the router applies them: gathers what they look at, and the clock."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import ClassVar

from deployments.config.app import RouterConfig
from deployments.router.access.caller import Caller
from deployments.router.decision.advisors.base import Advisor
from deployments.router.decision.query import Query
from deployments.router.models import ModelDirectory
from deployments.router.tokens.prompts import Prompt
from deployments.router.wire.openai import ParsedRequest, content_text
from scheduler.prompts.language import language_of
from scheduler.prompts.tasks import TASKS
from scheduler.rules.checks import KnownNames, check_rules
from scheduler.rules.rules import NO_RULING, Facts, Rule, Ruling, apply_rules
from scheduler.types import ClusterState, RoutingRequest


@dataclass(frozen=True, slots=True)
class FittingRules:
    """Names of the rules that fit a request."""

    names: tuple[str, ...]
    name: ClassVar[str] = "rules"

    def to_json(self) -> list[str]:
        """For the decision's JSON."""
        return list(self.names)


class RulesAdvisor(Advisor):
    """Applies the operator's rules to the requests of clients."""

    name: ClassVar[str] = "rules"

    def __init__(self, directory: ModelDirectory) -> None:
        self._book = RuleBook()
        self._models: list[str] = []

    def configure(self, config: RouterConfig) -> None:
        """Applies the section `rules`."""
        self._book = RuleBook.of(config)
        self._models = [model.id for model in config.models]

    def advise(self, query: Query, request: RoutingRequest, state: ClusterState) -> RoutingRequest:
        """Sets weights, policy and limits, bars models and prefers others, as the rules say."""
        book, parsed = self._book, query.parsed
        if query.caller is None or not book.rules:
            return request
        most = max(request.input_tokens.values(), default=0)
        ruling = book.ruling(parsed, request.task, most, state, query.caller)
        if not ruling.rules:
            return request
        barred = {m.model: why for m in state.models if (why := ruling.bars(m.model))}
        limiting, report = ruling.constraining, FittingRules(ruling.names)
        return replace(
            request,
            weights=ruling.weights(parsed.weights, request.weights),
            policy=ruling.policy(parsed.policy, request.policy),
            constraints=ruling.constraints(request.constraints),
            barred=barred,
            preferred=ruling.preferred,
            limits_from=f"rule {', '.join(map(repr, limiting))}" if limiting else "",
            reports={**request.reports, report.name: report},
        )

    def warnings(self, keys: Sequence[str] | None) -> Sequence[str]:
        """Rules that contradict or never fit."""
        return self._book.warnings(self._models, keys)


class RuleBook:
    """The rules of one configuration.

    Args:
        rules: In their order.
        clock: The time, with its zone.

    Attributes:
        rules: The same.
    """

    def __init__(
        self, rules: Sequence[Rule] = (), clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self.rules = tuple(rules)
        self._clock = clock
        self._reads_text = any(rule.when.text for rule in rules)
        self._reads_language = any(rule.when.languages for rule in rules)
        self._reads_health = any(rule.when.available or rule.when.unavailable for rule in rules)

    @classmethod
    def of(cls, config: RouterConfig) -> RuleBook:
        """Those of a configuration."""
        return cls([rule.rule() for rule in config.rules])

    def ruling(
        self,
        parsed: ParsedRequest,
        task: str,
        input_tokens: int,
        state: ClusterState,
        caller: Caller,
    ) -> Ruling:
        """What the rules say of one request.

        Args:
            parsed: The request.
            task: Its task class.
            input_tokens: The most that any model counts.
            state: The models at this moment.
            caller: Sender of the request.
        """
        if not self.rules:
            return NO_RULING
        away: frozenset[str] = frozenset()
        if self._reads_health:
            away = frozenset(m.model for m in state.models if m.unavailable is not None)
        facts = Facts(
            text=_all_text(parsed.prompt) if self._reads_text else "",
            task=task,
            input_tokens=input_tokens,
            now=self._clock(),
            language=language_of(parsed.text) if self._reads_language else "",
            headers=caller.headers,
            key=caller.key,
            unavailable=away,
        )
        return apply_rules(self.rules, facts)

    def warnings(self, models: Sequence[str], keys: Sequence[str] | None) -> list[str]:
        """Rules that contradict or never fit.

        Args:
            models: Ids of the configured models.
            keys: Names of the API keys, `None` while they are not read.
        """
        return check_rules(self.rules, KnownNames(models, TASKS, keys))


def _all_text(prompt: Prompt) -> str:
    """All messages or prompts, one to a line: what must not be said may stand in any of them."""
    messages = prompt.members.get("messages")
    if messages is not None:
        return "\n".join(content_text(message.get("content")) for message in messages)
    prompts = prompt.members.get("prompt")
    if isinstance(prompts, str):
        return prompts
    texts = prompts if isinstance(prompts, list) else ()
    return "\n".join(text for text in texts if isinstance(text, str))
