"""The operator's rules as the router applies them: gathers what they look at, and the clock."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from deployments.config.app import RouterConfig
from deployments.router.access.budgets import Account
from deployments.router.tokens.prompts import Prompt
from deployments.router.wire.openai import ParsedRequest, content_text
from scheduler.prompts.language import language_of
from scheduler.prompts.tasks import TASKS
from scheduler.rules.checks import KnownNames, check_rules
from scheduler.rules.rules import NO_RULING, Facts, Rule, Ruling, apply_rules
from scheduler.types import ClusterState


class Caller(NamedTuple):
    """Who asks.

    Attributes:
        headers: As ASGI has them, names in lower case.
        account: What the request is charged to, `None` without API keys.
    """

    headers: Sequence[tuple[bytes, bytes]] = ()
    account: Account | None = None

    @property
    def key(self) -> str | None:
        """Name of the API key, `None` without one."""
        return self.account.key.name if self.account else None


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
            caller: Who asks.
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
