"""A decision as JSON: the same over HTTP and from `python -m scheduler --json`."""

from __future__ import annotations

from typing import Any

from scheduler.asides import BanditReport, ShadowChoice
from scheduler.preferences import LimitReport, Metric
from scheduler.types import Candidate, Decision, Interval, Stages

STAGE_NAMES = {Metric.TIME: "runtime", Metric.ENERGY: "energy", Metric.ACCURACY: "accuracy"}
"""What users call the metrics where their stages stand; the weight of runtime is called `time`."""


def decision_to_dict(decision: Decision) -> dict[str, Any]:
    """The decision in values that any JSON encoder takes, candidates best first."""
    return {
        "decision_id": decision.decision_id,
        "model": decision.model,
        "policy": decision.policy,
        "weights": {metric.value: decision.weights[metric] for metric in Metric},
        "profile_version": decision.profile_version,
        "candidates": [_candidate(candidate) for candidate in decision.candidates],
        "excluded": [
            {"model": e.model, "kind": e.kind.value, "reason": e.reason, "field": e.field or None}
            for e in decision.excluded
        ],
        "task": decision.task,
        "quality_source": decision.quality_source,
        "limits": _limits(decision.limits),
        "rules": list(decision.rules),
        "canary": decision.canary,
        "bandit": _bandit(decision.bandit),
        "shadow": _shadow(decision.shadow),
        "session": session_to_dict(decision),
        "cascade": [
            {"model": step.model, "accept_above": step.accept_above} for step in decision.cascade
        ],
        "plan": decision.plan.to_dict() if decision.plan else None,
    }


def session_to_dict(decision: Decision) -> dict[str, Any] | None:
    """The conversation that the request belongs to, and whether it stays where it was."""
    session = decision.session
    if session is None:
        return None
    return {
        "id": session.id,
        "model": session.model,
        "cached_tokens": session.cached_tokens,
        "stayed": decision.model == session.model,
        "reason": session.reason(decision.model, decision.excluded),
    }


def _bandit(report: BanditReport | None) -> dict[str, Any] | None:
    if report is None:
        return None
    return {
        "context": report.context,
        "expected_reward": report.expected_reward,
        "best": report.best,
        "explored": report.explored,
    }


def _shadow(choice: ShadowChoice | None) -> dict[str, Any] | None:
    if choice is None:
        return None
    return {"policy": choice.policy, "model": choice.model, "reason": choice.reason}


def _limits(report: LimitReport | None) -> dict[str, Any] | None:
    if report is None:
        return None
    return {
        "confidence": report.confidence,
        "met": report.met,
        "otherwise": report.otherwise,
        "broken": list(report.broken),
    }


def _candidate(candidate: Candidate) -> dict[str, Any]:
    prediction = candidate.prediction
    return {
        "model": candidate.model,
        "score": candidate.score,
        "input_tokens": prediction.input_tokens,
        "input_tokens_exact": prediction.input_tokens_exact,
        "cached_input_tokens": prediction.cached_input_tokens,
        "output_tokens": prediction.output_tokens,
        "output_tokens_interval": interval_list(prediction.output_tokens_interval),
        "runtime_s": prediction.runtime_s,
        "runtime_interval_s": interval_list(prediction.runtime_interval_s),
        "energy_joules": prediction.energy_joules,
        "energy_interval_joules": interval_list(prediction.energy_interval_joules),
        "accuracy": candidate.accuracy,
        "accuracy_imputed": candidate.accuracy_imputed,
        "accuracy_interval": (
            interval_list(prediction.accuracy_interval) if prediction.accuracy_interval else None
        ),
        "familiarity": prediction.familiarity,
        "concurrency": prediction.concurrency,
        "sequences": prediction.sequences,
        "wait_s": prediction.wait_s,
        "runtime_factor": prediction.runtime_factor,
        "energy_factor": prediction.energy_factor,
        "extrapolates": prediction.extrapolates,
        "profile_origin": prediction.profile_origin,
        "profile_trials": prediction.profile_trials,
        "stages": {name: _stages(candidate.stages[metric]) for metric, name in STAGE_NAMES.items()},
    }


def interval_list(interval: Interval) -> list[float]:
    """Both ends."""
    return [interval.low, interval.high]


def _stages(stages: Stages) -> dict[str, float]:
    # Written out: `asdict` copies deeply, and the decision log does this for every request.
    return {
        "z": stages.z,
        "log": stages.log,
        "minmax": stages.minmax,
        "softmax": stages.softmax,
        "rebased": stages.rebased,
    }
