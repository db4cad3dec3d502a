"""From a parsed request to a decision, and from its answer to what is learnt of it. No I/O."""

from __future__ import annotations

import math
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace

from deployments.config.app import RouterConfig
from deployments.router.decision.canary import is_canary
from deployments.router.decision.learning import lesson_of
from deployments.router.decision.rejections import Rejections
from deployments.router.decision.rules import Caller, RuleBook
from deployments.router.decision.sessions import Sessions, Turn
from deployments.router.models import ModelDirectory
from deployments.router.sync.profiles import ProfileSource
from deployments.router.sync.quality import QualitySource
from deployments.router.sync.shared import SharedState
from deployments.router.tokens.counting import TokenCount, TokenCounter
from deployments.router.waking import Waker
from deployments.router.wire.api_error import ApiError
from deployments.router.wire.limits import check_input_tokens, check_request
from deployments.router.wire.openai import ParsedRequest
from scheduler.asides import ShadowChoice
from scheduler.bandit.features import context_of
from scheduler.capabilities import Refusal
from scheduler.choice.admission import REJECTIONS
from scheduler.costs.observations import Observation
from scheduler.decide import Scheduler
from scheduler.errors import InvalidRequestError, NoCandidateError
from scheduler.policies.bandit import BanditPolicy
from scheduler.prompts.features import extract
from scheduler.prompts.task_model import TaskModel
from scheduler.prompts.tasks import SHIPPED_MODEL, classify, sure_task
from scheduler.rules.rules import NO_RULING
from scheduler.types import ClusterState, Decision, RoutingRequest

AUTO = "auto"
LEAST_TOKENS_OF_STOPPED = 8
"""A request that was cancelled with fewer tokens has hardly begun: its costs are no token's."""


class Decider:
    """Everything that a decision needs, read at the moment of the decision.

    Args:
        directory: The models.
        profiles: Their costs.
        shared: The load, and what was learnt.
        counter: Counts prompts.
        quality: Estimates accuracies.

    Attributes:
        decisions: How many requests were dispatched.
        sessions: What is remembered of conversations.
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
        quality: QualitySource,
    ) -> None:
        self.sessions = Sessions(directory)
        self.rejections = Rejections()
        self.waker = Waker(directory)
        self.config = RouterConfig()
        self.decisions = 0
        self.turned_away = {kind.value: 0 for kind in sorted(REJECTIONS)}
        self.timeout_s = math.inf
        self._directory = directory
        self._profiles = profiles
        self._shared = shared
        self._counter = counter
        self._quality = quality
        self._bandit = shared.bandit
        self._tasks = TaskModel.from_bytes(SHIPPED_MODEL.read_bytes())
        self._scheduler = Scheduler()

    @property
    def config(self) -> RouterConfig:
        """The router's, replaced as a whole when it changes."""
        return self._config

    @config.setter
    def config(self, config: RouterConfig) -> None:
        self._config, self._rules = config, RuleBook.of(config)
        self._usual_weights = config.default_weights.weights()
        self._limits = config.constrained.settings()
        self._cascade = tuple(step.step() for step in config.cascade)
        self.sessions.configure(config.sessions)
        self.waker.models = [model.id for model in config.models if model.wake]
        self.waker.max_waiting = config.max_waking_requests

    def rule_warnings(self, keys: Sequence[str] | None) -> list[str]:
        """What is odd about the rules; the names of the API keys are `None` until they are read."""
        return self._rules.warnings([model.id for model in self.config.models], keys)

    @property
    def directory(self) -> ModelDirectory:
        """The models."""
        return self._directory

    def state(self) -> ClusterState:
        """All models at this moment."""
        state = self._directory.cluster_state(
            self._profiles.current, self._shared, self.config.static_model
        )
        bandit = self._bandit.current if self._bandit.wanted else None
        return replace(
            state,
            limits=self._limits,
            cascade=self._cascade,
            bandit=bandit,
            may_explore=bandit is not None and self._bandit.may_explore,
            answers=self._quality.current.answers if self._quality.current else None,
        )

    async def count(self, parsed: ParsedRequest) -> dict[str, TokenCount]:
        """The input tokens of a request for every model that it may go to.

        Raises:
            ApiError: 400, the request is beyond the configured limits.
        """
        check_request(parsed, self.config.limits)
        named = parsed.model in self._directory
        models = [parsed.model] if named else [e.model for e in self._directory.entries()]
        counts = await self._counter.count(parsed.prompt, models, self.config.exact_count_bytes)
        check_input_tokens(parsed, counts, self.config.limits)
        return counts

    def decide(
        self,
        parsed: ParsedRequest,
        counts: Mapping[str, TokenCount],
        caller: Caller | None = None,
        turn: Turn | None = None,
    ) -> Decision:
        """Who answers.

        Args:
            parsed: The request.
            counts: Its input tokens by model; estimated for models that are not named.
            caller: Who asks; rules are for callers, not for the router's own requests.
            turn: The request as a turn of a conversation, `None` where it is none.

        Raises:
            ApiError: 404, the request names a model that is not configured.
            InvalidRequestError: The request asks for something that there is not.
            NoCandidateError: No model can take it.
        """
        policy, canary = self.config.default_policy, False
        if caller and (config := self.config.canary) and is_canary(parsed, caller, config):
            policy, canary = config.policy, True
        if parsed.policy == BanditPolicy.name:
            # From now on also what it is not asked for teaches it.
            self._bandit.wanted = True
        state = self.state()
        inputs = {
            m.model: counts.get(m.model) or self._counter.estimate(parsed.prompt, m.model)
            for m in state.models
        }
        input_tokens = {model: count.tokens for model, count in inputs.items()}
        # Read once for both, and only where one of them looks.
        task = parsed.task or sure_task(parsed.text)
        features = None if task and self._quality.current is None else extract(parsed.text)
        quality, quality_source = self._quality.estimate(parsed.text, features)
        task = task or classify(parsed.text, self._tasks, features)
        ruling = NO_RULING
        if caller is not None and self._rules.rules:
            most = max((count.tokens for count in inputs.values()), default=0)
            ruling = self._rules.ruling(parsed, task, most, state, caller)
        request = RoutingRequest(
            decision_id=uuid.uuid4().hex,
            input_tokens=input_tokens,
            estimated_inputs=frozenset(m for m, count in inputs.items() if not count.exact),
            max_tokens=parsed.max_tokens,
            output_tokens=parsed.output_tokens,
            weights=ruling.weights(parsed.weights, self._usual_weights),
            policy=ruling.policy(parsed.policy, policy),
            models=parsed.models,
            constraints=ruling.constraints(parsed.constraints),
            task=task,
            quality=quality,
            quality_source=quality_source,
            sequence=self.decisions,
            ruling=ruling,
            session=self.sessions.recall(turn, input_tokens) if turn else None,
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
            doubted=self.rejections.of(parsed, ((m.model, m.capabilities) for m in state.models)),
            prompt_field="messages" if parsed.prompt.is_chat else "prompt",
            max_tokens_field=(
                "max_completion_tokens" if "max_completion_tokens" in parsed.asked else "max_tokens"
            ),
        )
        if self._bandit.wanted:
            tokens = min(request.input_tokens.values(), default=0)
            request = replace(request, context=context_of(parsed.text, task, tokens))
        if parsed.model == AUTO:
            decision = self._scheduler.decide(request, state)
            if canary and request.policy == policy:
                decision = replace(decision, canary=True)
            if self.config.shadow:
                shadow = self._in_shadow(request, state, self.config.shadow.policy)
                decision = replace(decision, shadow=shadow)
            return decision
        if parsed.model not in self._directory:
            raise self.unknown_model(parsed.model)
        return self._scheduler.pin(request, state, parsed.model)

    def _in_shadow(self, request: RoutingRequest, state: ClusterState, policy: str) -> ShadowChoice:
        """What another policy would do; it explores nothing, for nothing would be learnt."""
        asked, state = replace(request, policy=policy), replace(state, may_explore=False)
        try:
            return ShadowChoice(policy, self._scheduler.decide(asked, state).model)
        except (InvalidRequestError, NoCandidateError) as error:
            return ShadowChoice(policy, None, str(error))

    def dispatched(self, decision: Decision) -> None:
        """Count a decision that is acted on."""
        self.decisions += 1
        self._bandit.dispatched(decision)

    def learn(
        self, parsed: ParsedRequest, decision: Decision, observation: Observation | None
    ) -> None:
        """Take in what an answer took, whole or stopped.

        Several answers to one request teach nothing: they have no one length, and share the costs
        of their prompt. A stopped one teaches what its tokens cost, and nothing about its length.
        """
        if observation is None or parsed.choices != 1:
            return
        if observation.stopped and observation.output_tokens < LEAST_TOKENS_OF_STOPPED:
            return
        decision = _as_for(decision, observation.model)
        self._learn_tokens(parsed, decision, observation)
        description = self._directory[decision.model].description or {}
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
        told = None
        if decision.candidates and decision.model == observation.model:
            prediction = decision.chosen.prediction
            told = TokenCount(prediction.input_tokens, prediction.input_tokens_exact)
        self._counter.learn(parsed.prompt, observation.model, told, observation.input_tokens)

    def learn_rejections(self, parsed: ParsedRequest, rejected: Mapping[str, ApiError]) -> None:
        """Take in that a model took what the engines of others had rejected."""
        capabilities = {model: self._directory[model].capabilities for model in rejected}
        self.rejections.learn(parsed, rejected, capabilities)

    def note_refusal(self, error: ApiError) -> None:
        """Count a request that was turned away; other errors are not counted."""
        if error.status == 429 and error.code in self.turned_away:
            self.turned_away[error.code] += 1

    def unknown_model(self, name: str) -> ApiError:
        """The answer to whoever asks for a model that is not configured."""
        known = ", ".join([AUTO, *(entry.model for entry in self._directory.entries())])
        return ApiError(
            404, f"model: unknown {name!r}, known: {known}", param="model", code="model_not_found"
        )


def _as_for(decision: Decision, model: str) -> Decision:
    """The decision as if it had been for another one of its candidates."""
    if decision.model == model:
        return decision
    candidates = tuple(c for c in decision.candidates if c.model == model)
    return replace(decision, model=model, candidates=candidates)
