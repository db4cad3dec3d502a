"""What a request meets on a model, as it is kept with the model's state."""

from __future__ import annotations

from dataclasses import dataclass

from scheduler.costs.forms import Polynomial


@dataclass(slots=True)
class Meeting:
    """What every request of a priority and a number of answers meets on a model.

    Attributes:
        concurrency: Answers side by side, its own included.
        queued: Answers that end before its last one begins.
        runtime_s: Of its tokens, with the wait, the slowdown and the correction.
        energy_joules: Of its tokens, of all of its answers, with the correction.
    """

    concurrency: float
    queued: float
    runtime_s: Polynomial
    energy_joules: Polynomial
