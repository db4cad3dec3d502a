"""From a request and the state of the cluster to a decision. Nothing is sent anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
from scheduler.policies import get_policy
from scheduler.preferences import LimitReport
from scheduler.types import Candidate, ClusterState, Decision, Report, RoutingRequest

PINNED = "pinned"
"""The policy that decisions name where the request itself named the model."""


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
        settings = policy.limits(state)
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
        comparison = compare(
            contenders, predicted, models=state.models, temperature=self.temperature
        )
        scores = policy.scores(request, state, comparison)
        order = rank(scores, request.weights, comparison)
        if request.max_tokens is None and policy.makes_room:
            # Stable, like the others: among each kind, the policy's order.
            order.sort(key=lambda index: not _has_room(contenders[index]))
        if preferred := request.preferred:
            order.sort(key=lambda index: contenders[index].model.model not in preferred)
        if (kept := request.kept) is not None:
            order.sort(key=lambda index: contenders[index].model.model != kept)
        names = [contenders[index].model.model for index in order]
        reports: dict[str, Report] = {**request.reports}
        if report is not None:
            reports[report.name] = report
        for said in policy.reports(request, state, comparison, names):
            reports[said.name] = said
        return Decision(
            decision_id=request.decision_id,
            model=names[0],
            policy=policy.name,
            weights=request.weights.normalized(),
            profile_version=state.profile_version,
            candidates=RankedCandidates(comparison, scores, order),
            excluded=tuple(excluded),
            task=request.task,
            cached=request.cached,
            reports=reports,
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
        if barred := request.barred.get(model):
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
            cached=request.cached,
            reports=request.reports,
        )


def _whose_limits(request: RoutingRequest) -> str:
    return f" (limits of {request.limits_from})" if request.limits_from else ""


def _out_of_limits(breaking: Breaking) -> Exclusion:
    late = late_by_waiting(breaking)
    model = breaking.contender.model.model
    reason = breaking.reason + _whose_limits(breaking.contender.request)
    return late or Exclusion(model, ExclusionKind.CONSTRAINT, reason)


def _has_room(contender: Contender) -> bool:
    return has_room(contender.request, contender.model, contender.profile, contender.prompt_tokens)
