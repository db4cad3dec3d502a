"""Ladders of models: the next one is asked only where the one before was not sure of its answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class CascadeStep:
    """One model of a ladder.

    Attributes:
        accept_above: Its answer is taken where the mean log probability of the answer's tokens is
            at least this; `None` takes any.
    """

    model: str
    accept_above: float | None = None


def steps_of(ladder: Sequence[CascadeStep], ranked: Sequence[str]) -> tuple[CascadeStep, ...]:
    """The part of a ladder that a request can climb; the last answer is taken as it is.

    Args:
        ladder: As configured, the first model first.
        ranked: Models that can take the request, best first.

    Returns:
        Nothing where there is no second model to ask, or a rule has put another one first.
    """
    steps = [step for step in ladder if step.model in ranked]
    if len(steps) < 2 or steps[0].model != ranked[0]:
        return ()
    return (*steps[:-1], replace(steps[-1], accept_above=None))
