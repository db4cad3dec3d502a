"""From a request and the state of the cluster to a decision. Nothing is sent anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scheduler.asides import BanditReport
from scheduler.cascade import steps_of
from scheduler.choice.admission import full, late_by_waiting, turned_away
from scheduler.choice.comparison import RankedCandidates, compare
from scheduler.choice.constraints import Breaking, broken_limits, effective_limits, next_best
from scheduler.choice.eligibility import contend, eligible_models, incapable, unknown_models
from scheduler.choice.normalization import DEFAULT_TEMPERATURE
from scheduler.choice.scoring import rank
from scheduler.costs.output_length import has_room
from scheduler.costs.predict import Contender, PredictedCosts, predict_costs
from scheduler.errors import InvalidPredictionError, InvalidRequestError, NoCandidateError
from scheduler.exclusions import Exclusion, ExclusionKind
from scheduler.policies import bandit, get_policy
from scheduler.policies.cascade import CascadePolicy
from scheduler.policies.constrained import ConstrainedPolicy
from scheduler.policies.sequential import SequentialPolicy
from scheduler.policies.static import StaticPolicy
from scheduler.preferences import LimitReport
from scheduler.sequential.planning import plan_of
from scheduler.types import Candidate, ClusterState, Decision, RoutingRequest

PINNED = "pinned"
"""The policy that decisions name where the request itself named the model."""
OF_A_FIXED_ORDER = frozenset({StaticPolicy.name, CascadePolicy.name, SequentialPolicy.name})
"""Policies whose order the operator or a plan has set; room for the answer does not change it."""


@dataclass(frozen=True, slots=True)
class Scheduler:
    """Decides which model answers a request. Deterministic: equal arguments, equal decisions.

    Attributes:
        temperature: Of the softmax stage of the normalization.
    """

    temperature: float = DEFAULT_TEMPERATURE

    def decide(self, request: RoutingRequest, state: ClusterState) -> Decision:
        """Compare all models that can take a request and choose the best by the request's policy.

        Raises:
            InvalidRequestError: The request names an unknown model or policy, or a policy that
                this state does not allow, or has no token count for a model.
            NoCandidateError: Every model is excluded; it has all the reasons.
        """
        policy = get_policy(request.policy)
        eligible, excluded = eligible_models(request, state)
        settings = state.limits if policy.name == ConstrainedPolicy.name else None
        limits = effective_limits(request.constraints, settings)
        contenders: list[Contender] = []
        predicted: list[PredictedCosts] = []
        breaking: list[Breaking] = []
        for contender in eligible:
            try:
                costs = predict_costs(contender)
            except InvalidPredictionError as error:
                name, reason = contender.model.model, str(error)
                excluded.append(Exclusion(name, ExclusionKind.INVALID_PREDICTION, reason))
                continue
            if exclusion := turned_away(contender, costs.runtime_s, request.deadline_s):
                excluded.append(exclusion)
                continue
            if limits and (broken := broken_limits(limits, contender, costs)):
                by_confidence = limits.confidence is not None
                breaking.append(Breaking(contender, costs, broken, by_confidence))
                continue
            contenders.append(contender)
            predicted.append(costs)
        report = LimitReport(limits.confidence, met=True) if limits else None
        if settings and limits and not contenders and (taken := next_best(breaking, settings)):
            breaking.remove(taken)
            contenders, predicted = [taken.contender], [taken.costs]
            reasons = tuple(broken.reason for broken in taken.broken)
            report = LimitReport(limits.confidence, False, settings.otherwise, reasons)
        excluded += map(_out_of_limits, breaking)
        if not contenders:
            raise NoCandidateError(tuple(excluded))
        comparison = compare(contenders, predicted, temperature=self.temperature)
        scores = policy.scores(request, state, comparison)
        order = rank(scores, request.weights, comparison)
        if request.max_tokens is None and policy.name not in OF_A_FIXED_ORDER:
            # Stable, like the others: among each kind, the policy's order.
            order.sort(key=lambda index: not _has_room(contenders[index]))
        if preferred := request.ruling.rules and request.ruling.preferred:
            order.sort(key=lambda index: contenders[index].model.model not in preferred)
        if request.session and request.session.keep:
            kept = request.session.model
            order.sort(key=lambda index: contenders[index].model.model != kept)
        names = [contenders[index].model.model for index in order]
        plan = None
        if policy.name == SequentialPolicy.name and len(names) > 1:
            plan = plan_of(request, state, comparison)
        return Decision(
            decision_id=request.decision_id,
            model=names[0],
            policy=policy.name,
            weights=request.weights.normalized(),
            profile_version=state.profile_version,
            candidates=RankedCandidates(comparison, scores, order),
            excluded=tuple(excluded),
            task=request.task,
            quality_source=request.quality_source,
            session=request.session,
            cascade=steps_of(state.cascade, names) if policy.name == CascadePolicy.name else (),
            # A rule may have put a model first that the plan does not know.
            plan=plan if plan and names[0] in plan.models else None,
            limits=report,
            rules=request.ruling.names,
            bandit=(
                bandit.report(request, state, comparison, scores, order[0])
                if request.context
                else None
            ),
        )

    def pin(self, request: RoutingRequest, state: ClusterState, model: str) -> Decision:
        """The decision for a request that names its model.

        Neither its context length nor constraints and the request's `models` are checked: the
        user chose, and the engine that serves the model has the last word. Rules may bar it, and
        what its engine is known to reject is rejected here, in words that say what it would take.
        Where it would have to wait, the answer must come in time all the same.

        Returns:
            A decision of the policy `pinned`, whose one candidate says what the request would
            cost. Without candidates where the model has no profile or no valid prediction.

        Raises:
            InvalidRequestError: There is no such model, or no token count for it.
            NoCandidateError: The model cannot take requests now, or not in time, or not such ones,
                or a rule bars it.
        """
        pinned = next((m for m in state.models if m.model == model), None)
        if pinned is None:
            raise InvalidRequestError("model", unknown_models([model], state))
        if barred := request.ruling.bars(model):
            raise NoCandidateError((Exclusion(model, ExclusionKind.RULE, barred),))
        if refusal := incapable(request, pinned):
            exclusion = Exclusion(
                model, ExclusionKind.CAPABILITY, refusal.reason, field=refusal.field
            )
            raise NoCandidateError((exclusion,))
        if pinned.unavailable is not None:
            exclusion = Exclusion(model, ExclusionKind.UNAVAILABLE, pinned.unavailable)
            raise NoCandidateError((exclusion,))
        candidates: Sequence[Candidate] = ()
        learnt: BanditReport | None = None
        excluded: tuple[Exclusion, ...] = ()
        away = None
        if pinned.profile is not None:
            contender = contend(request, pinned, pinned.profile)
            try:
                costs = predict_costs(contender)
            except InvalidPredictionError as error:
                excluded = (Exclusion(model, ExclusionKind.INVALID_PREDICTION, str(error)),)
                away = full(pinned, request.priority, None)
            else:
                away = turned_away(contender, costs.runtime_s, request.deadline_s)
                if away is None and (limit_s := request.constraints.max_latency_s) is not None:
                    away = turned_away(contender, costs.runtime_s, limit_s, surely=True)
                comparison = compare([contender], [costs], temperature=self.temperature)
                candidates = RankedCandidates(comparison, scores=[0.0], order=[0])
                if request.context:
                    learnt = bandit.report(request, state, comparison, [0.0], 0)
        else:
            away = full(pinned, request.priority, None)
        if away is not None:
            raise NoCandidateError((away,))
        return Decision(
            decision_id=request.decision_id,
            model=model,
            policy=PINNED,
            weights=request.weights.normalized(),
            profile_version=state.profile_version,
            candidates=candidates,
            excluded=excluded,
            task=request.task,
            quality_source=request.quality_source,
            rules=request.ruling.names,
            bandit=learnt,
            session=request.session,
        )


def _whose_limits(request: RoutingRequest) -> str:
    names = request.ruling.constraining
    return f" (limits of rule {', '.join(map(repr, names))})" if names else ""


def _out_of_limits(breaking: Breaking) -> Exclusion:
    late = late_by_waiting(breaking)
    model = breaking.contender.model.model
    reason = breaking.reason + _whose_limits(breaking.contender.request)
    return late or Exclusion(model, ExclusionKind.CONSTRAINT, reason)


def _has_room(contender: Contender) -> bool:
    return has_room(contender.request, contender.model, contender.profile, contender.prompt_tokens)
