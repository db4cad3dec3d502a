"""A decision as JSON: the same over HTTP and from `python -m scheduler --json`."""

from __future__ import annotations

from typing import Any

from scheduler.preferences import Metric
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
        # Fields that every record has; a report with one of these names takes the value's place.
        "quality_source": "",
        "limits": None,
        "rules": [],
        "canary": False,
        "bandit": None,
        "shadow": None,
        "session": None,
        "cascade": [],
        "plan": None,
        **{name: report.to_json() for name, report in decision.reports.items()},
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
