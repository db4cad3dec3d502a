"""From a parsed request to a decision, and from its answer to what is learnt of it. No I/O.

Knows no optional feature: those are the advisors.
"""

from __future__ import annotations

import asyncio
import math
import time
import uuid
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from cluster.naming import AUTO
from cluster.store.actor import Store
from deployments.config.app import RouterConfig
from deployments.router.decision.advisors import ADVISORS
from deployments.router.decision.advisors.base import Advisor
from deployments.router.decision.learning import lesson_of
from deployments.router.decision.query import Query
from deployments.router.decision.rejections import Rejections
from deployments.router.models import ModelDirectory
from deployments.router.sync.exchange import Exchange, exchange
from deployments.router.sync.profiles import ProfileSource
from deployments.router.sync.shared import SharedState
from deployments.router.tokens.counting import TokenCount, TokenCounter
from deployments.router.waking import Waker
from deployments.router.wire.api_error import ApiError
from deployments.router.wire.error_codes import ErrorCode
from deployments.router.wire.limits.request import check_input_tokens
from deployments.router.wire.openai import HourlyWeights, ParsedRequest
from scheduler.capabilities import Feature, Refusal
from scheduler.choice.admission import REJECTIONS
from scheduler.costs.grid import NO_GRID
from scheduler.costs.observations import Observation
from scheduler.decide import Scheduler
from scheduler.preferences import Weights
from scheduler.prompts.task_model import TaskModel
from scheduler.prompts.tasks import SHIPPED_MODEL, classify, sure_task
from scheduler.types import ClusterState, Decision, Report, RoutingRequest

LEAST_TOKENS_OF_STOPPED = 8
"""A request that was cancelled with fewer tokens has hardly begun: its costs are no token's."""


class Decider:
    """Everything that a decision needs, read at the moment of the decision.

    Args:
        directory: The models.
        profiles: Their costs.
        shared: The load, and what was learnt.
        counter: Counts prompts.

    Attributes:
        directory: The models.
        advisors: The optional features, in the order in which they see a request.
        decisions: How many requests were dispatched.
        waker: Brings models back from 0 replicas.
        timeout_s: No answer is waited for any longer.
        rejections: What engines rejected lately that others took.
        turned_away: How many requests were rejected, by the names of
            `scheduler.choice.admission.REJECTIONS`.
    """

    def __init__(
        self,
        directory: ModelDirectory,
        profiles: ProfileSource,
        shared: SharedState,
        counter: TokenCounter,
    ) -> None:
        self.directory = directory
        self.advisors: Sequence[Advisor] = [advisor(directory) for advisor in ADVISORS]
        self.rejections = Rejections()
        self.waker = Waker(directory)
        self.config = RouterConfig()
        self.decisions = 0
        self.turned_away = {kind.value: 0 for kind in sorted(REJECTIONS)}
        self.timeout_s = math.inf
        self._profiles = profiles
        self._shared = shared
        self._counter = counter
        self._tasks = TaskModel.from_bytes(SHIPPED_MODEL.read_bytes())
        self._scheduler = Scheduler()

    @property
    def config(self) -> RouterConfig:
        """The router's, replaced as a whole when it changes."""
        return self._config

    @config.setter
    def config(self, config: RouterConfig) -> None:
        # First: its file may be gone since it was checked.
        self.directory.grid = config.grid.grid() if config.grid else NO_GRID
        self._config, self._meanings = config, config.meanings()
        self._usual_weights = config.default_weights.weights()
        self._policy_inputs = config.policy_inputs()
        for advisor in self.advisors:
            advisor.configure(config)
        self.waker.models = [model.id for model in config.models if model.wake]
        self.waker.max_waiting = config.max_waking_requests

    def named(self, parsed: ParsedRequest) -> ParsedRequest:
        """The request with the model that its alias, or no name at all, stands for.

        Raises:
            ApiError: 400, its weights need a grid; or it asks for numbers about texts, which are of
                use only from a model that its client chose.
        """
        meaning = self._meanings.get(parsed.model)
        if meaning is not None:
            parsed = replace(parsed, model=meaning)
        if parsed.pooled and parsed.model in ("", AUTO):
            raise self._wants_a_name(parsed.needs[0].feature)
        if parsed.weights and parsed.hourly:
            parsed = replace(parsed, weights=self._at_this_hour(parsed.weights, parsed.hourly))
        return parsed

    def _wants_a_name(self, feature: Feature) -> ApiError:
        able = [
            entry.model
            for entry in self.directory.entries()
            if entry.description is not None and feature not in entry.capabilities.lacks
        ]
        message = (
            f"model: name the model whose {feature} are wanted, {AUTO!r} chooses among models that "
            f"generate; of those that are up, these do it: {', '.join(able) or 'none'}"
        )
        return ApiError(400, message, param="model", code=ErrorCode.INVALID_VALUE)

    def _at_this_hour(self, weights: Weights, hourly: HourlyWeights) -> Weights:
        """The weights with that of energy as its price and its carbon are now.

        Raises:
            ApiError: 400, the configuration does not say what they are.
        """
        grid, now = self.directory.grid, time.time()
        energy = hourly.energy
        for name, weight, rate, setting in (
            ("price", hourly.price, grid.price, "price_per_kwh"),
            ("carbon", hourly.carbon, grid.carbon, "g_co2_per_kwh"),
        ):
            if weight and rate is None:
                field = f"routing.weights.{name}"
                message = f"{field}: needs grid.{setting} in the router's configuration"
                raise ApiError(400, message, param=field, code="invalid_value")
            energy += weight * rate.factor(now) if rate else 0.0
        return replace(weights, energy=energy)

    def _usual(self) -> Weights:
        """Those of a request that names none."""
        usual = self.config.default_weights
        if not (usual.price or usual.carbon):
            return self._usual_weights
        hourly = HourlyWeights(usual.energy, usual.price, usual.carbon)
        return self._at_this_hour(self._usual_weights, hourly)

    def meaning(self, name: str) -> str:
        """What a name in a request stands for; the empty one is that of a request without one."""
        return self._meanings.get(name, name)

    def knows(self, name: str) -> bool:
        """Whether requests may ask for a model of that name."""
        return name == AUTO or name in self.directory

    def state(self, caller: str = "") -> ClusterState:
        """All models at this moment, for a request of an API key if one asks."""
        extras: dict[type, object] = {**self._policy_inputs}
        for advisor in self.advisors:
            extras |= advisor.extras()
        return self.directory.cluster_state(self._profiles.current, self._shared, extras, caller)

    async def count(self, parsed: ParsedRequest) -> dict[str, TokenCount]:
        """The input tokens of a request for every model that it may go to.

        Raises:
            ApiError: 400, they are more than the configured limit.
        """
        named = parsed.model in self.directory
        models = [parsed.model] if named else [e.model for e in self.directory.entries()]
        if parsed.pooled:
            # Nothing is predicted of it, and its texts may be a whole library.
            counts = {model: self._counter.estimate(parsed.prompt, model) for model in models}
        else:
            most = self.config.exact_count_bytes
            counts = await self._counter.count(parsed.prompt, models, most)
        check_input_tokens(parsed, counts, self.config.limits)
        return counts

    def decide(self, query: Query, counts: Mapping[str, TokenCount]) -> Decision:
        """Choose the model that answers. Changes nothing: a dry run is this and no more.

        Args:
            query: The request.
            counts: Its input tokens by model; estimated for models that are not named.

        Raises:
            ApiError: 404, the request names a model that is not configured; or as an advisor says.
            InvalidRequestError: The request asks for something that there is not.
            NoCandidateError: No model can take it.
        """
        parsed, state = query.parsed, self.state(query.key or "")
        request = self._request(query, counts, state)
        for advisor in self.advisors:
            request = advisor.advise(query, request, state)
        if parsed.model == AUTO:
            decision = self._scheduler.decide(request, state)
        elif parsed.model in self.directory:
            decision = self._scheduler.pin(request, state, parsed.model)
        else:
            raise self.unknown_model(parsed.model)
        reports: dict[str, Report] = {}
        for advisor in self.advisors:
            if (report := advisor.report(query, request, state, decision)) is not None:
                reports[report.name] = report
        return replace(decision, reports={**decision.reports, **reports}) if reports else decision

    def _request(
        self, query: Query, counts: Mapping[str, TokenCount], state: ClusterState
    ) -> RoutingRequest:
        """The request as the client sent it, with the defaults of the configuration."""
        parsed = query.parsed
        inputs = {
            m.model: counts.get(m.model) or self._counter.estimate(parsed.prompt, m.model)
            for m in state.models
        }
        task = parsed.task or sure_task(parsed.text)
        return RoutingRequest(
            decision_id=uuid.uuid4().hex,
            input_tokens={model: count.tokens for model, count in inputs.items()},
            estimated_inputs=frozenset(m for m, count in inputs.items() if not count.exact),
            max_tokens=parsed.max_tokens,
            output_tokens=parsed.output_tokens,
            weights=parsed.weights or self._usual(),
            policy=parsed.policy or self.config.default_policy,
            models=parsed.models,
            constraints=parsed.constraints,
            task=task or classify(parsed.text, self._tasks, query.features),
            sequence=self.decisions,
            priority=parsed.priority,
            deadline_s=self.timeout_s,
            prompts=parsed.prompts,
            sequences=parsed.choices,
            needs=parsed.needs,
            refused={
                model: Refusal("messages", f"its chat template rejects it: {count.rejection}")
                for model, count in inputs.items()
                if count.rejection
            },
            doubted=self.rejections.of(
                parsed, ((m.model, m.capabilities) for m in state.models), query.key
            ),
            prompt_field=parsed.prompt.field,
            max_tokens_field=(
                "max_completion_tokens"
                if type(parsed.body.get("max_completion_tokens")) is int
                else "max_tokens"
            ),
        )

    def dispatched(self, decision: Decision) -> None:
        """Count a decision that is acted on."""
        self.decisions += 1
        for advisor in self.advisors:
            advisor.dispatched(decision)

    def answered(self, query: Query, observation: Observation) -> None:
        """Let the advisors learn from an answer that left whole."""
        for advisor in self.advisors:
            advisor.learn(query, observation)

    def shared(self) -> list[Exchange[Any]]:
        """What the advisors share with the other routers."""
        return [one for advisor in self.advisors for one in advisor.shared()]

    async def exchange(self, store: Store) -> None:
        """Exchange all of that with the store now.

        Args:
            store: Handles of its actors.

        Raises:
            TimeoutError: The store does not answer one of them; the others are done all the same.
            RayError: It is unavailable.
        """
        await _all([exchange(one, store) for one in self.shared()])

    def learn(
        self, parsed: ParsedRequest, decision: Decision, observation: Observation | None
    ) -> None:
        """Take in what an answer took, whole or stopped.

        Several answers to one request teach nothing: they have no one length, and share the costs
        of their prompt. A stopped one teaches what its tokens cost, and nothing about its length.
        What is learnt is of generated text.
        """
        if observation is None or parsed.choices != 1 or parsed.pooled:
            return
        if observation.stopped and observation.output_tokens < LEAST_TOKENS_OF_STOPPED:
            return
        decision = _as_for(decision, observation.model)
        self._learn_tokens(parsed, decision, observation)
        description = self.directory[decision.model].description or {}
        self._shared.learn(
            lesson_of(
                decision,
                observation,
                parsed,
                self._profiles.current,
                description.get("max_num_seqs"),
            )
        )

    def _learn_tokens(
        self, parsed: ParsedRequest, decision: Decision, observation: Observation
    ) -> None:
        count = None
        if decision.candidates and decision.model == observation.model:
            prediction = decision.chosen.prediction
            count = TokenCount(prediction.input_tokens, prediction.input_tokens_exact)
        self._counter.learn(parsed.prompt, observation.model, count, observation.input_tokens)

    def learn_rejections(
        self, parsed: ParsedRequest, rejected: Mapping[str, ApiError], key: str | None
    ) -> None:
        """Take in that a model took what the engines of others had rejected."""
        capabilities = {model: self.directory[model].capabilities for model in rejected}
        self.rejections.learn(parsed, rejected, capabilities, key)

    def note_refusal(self, error: ApiError) -> None:
        """Count a request that was turned away; other errors are not counted."""
        if error.status == 429 and error.code in self.turned_away:
            self.turned_away[error.code] += 1

    def unknown_model(self, name: str) -> ApiError:
        """The answer to a request for a model that is not configured."""
        models = [entry.model for entry in self.directory.entries()]
        known = ", ".join([AUTO, *models, *self.config.aliases])
        return ApiError(
            404, f"model: unknown {name!r}, known: {known}", param="model", code="model_not_found"
        )


def _as_for(decision: Decision, model: str) -> Decision:
    """The decision as if it had been for another one of its candidates."""
    if decision.model == model:
        return decision
    candidates = tuple(c for c in decision.candidates if c.model == model)
    return replace(decision, model=model, candidates=candidates)


async def _all(actions: Sequence[Awaitable[None]]) -> None:
    ended = await asyncio.gather(*actions, return_exceptions=True)
    if failures := [error for error in ended if isinstance(error, Exception)]:
        raise failures[0]
