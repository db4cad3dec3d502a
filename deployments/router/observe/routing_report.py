"""What is reported of a decision: in the answer's `routing` object and in the decision log."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

from deployments.router.delivery.attempts import Attempt
from scheduler.costs.grid import NO_GRID, Grid
from scheduler.costs.observations import Observation
from scheduler.serialization import decision_to_dict, interval_list
from scheduler.types import Decision


def routing_object(
    decision: Decision,
    observation: Observation | None,
    attempts: Sequence[Attempt],
    grid: Grid = NO_GRID,
) -> dict[str, Any]:
    """The member `routing` of an answer.

    Args:
        decision: Who was to answer.
        observation: What the answer took, the last of the attempts. Seconds and joules of answers
            that were rejected before it are included.
        attempts: Who was asked; the last one answered.
        grid: Where the energy came from.
    """
    rules, session = decision.reports.get("rules"), decision.reports.get("session")
    report: dict[str, Any] = {
        "decision_id": decision.decision_id,
        "model": attempts[-1].model,
        "policy": decision.policy,
        "rules": rules.to_json() if rules else [],
        "score": None,
        "predicted": None,
        "actual": None,
        "energy_joules": None,
        "energy_source": None,
    }
    if decision.candidates:
        chosen = decision.chosen
        prediction = chosen.prediction
        report["score"] = chosen.score
        report["predicted"] = {
            "output_tokens": prediction.output_tokens,
            "sequences": prediction.sequences,
            "runtime_s": prediction.runtime_s,
            "runtime_interval_s": interval_list(prediction.runtime_interval_s),
            "energy_joules": prediction.energy_joules,
            "energy_interval_joules": interval_list(prediction.energy_interval_joules),
            "accuracy": chosen.accuracy,
            "concurrency": prediction.concurrency,
        }
    if observation is not None:
        runtime_s, energy_joules = spent(observation, attempts)
        report["actual"] = {
            "output_tokens": observation.output_tokens,
            "runtime_s": runtime_s,
            "energy_joules": energy_joules,
        }
        if grid is not NO_GRID and energy_joules is not None:
            footprint = grid.footprint(energy_joules, time.time())
            report["actual"] |= {
                "co2_g": footprint.co2_g,
                "cost": footprint.cost,
                "currency": footprint.currency,
            }
        report["energy_joules"] = energy_joules
        report["energy_source"] = observation.energy_source
    report["session"] = session.to_json() if session else None
    report["attempts"] = [attempt.to_dict() for attempt in attempts]
    return report


def spent(observation: Observation, attempts: Sequence[Attempt]) -> tuple[float, float | None]:
    """Seconds and joules of an answer with those that were rejected before it.

    Returns:
        `None` for the joules where those of one of them are not known.
    """
    taken = [observation, *(attempt.rejected for attempt in attempts if attempt.rejected)]
    joules = [seen.energy_joules for seen in taken if seen.energy_joules is not None]
    runtime_s = math.fsum(seen.runtime_s for seen in taken)
    return runtime_s, math.fsum(joules) if len(joules) == len(taken) else None


def decision_record(
    decision: Decision,
    observation: Observation | None,
    attempts: Sequence[Attempt],
    *,
    error: str | None = None,
    key: str | None = None,
) -> dict[str, Any]:
    """One line of the decision log.

    Args:
        decision: As for `routing_object`.
        observation: The same.
        attempts: The same.
        error: Why there is no whole answer.
        key: Name of the API key that asked.
    """
    return {
        **decision_to_dict(decision),
        "attempts": [attempt.to_dict() for attempt in attempts],
        "finished_at": time.time(),
        "observation": _fields(observation) if observation else None,
        "error": error,
        "key": key,
    }


def _fields(observation: Observation) -> dict[str, Any]:
    # `asdict` copies every value, which takes longer than the decision.
    return {name: getattr(observation, name) for name in observation.__slots__}
