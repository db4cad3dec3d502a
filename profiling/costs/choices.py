"""What each of the three weights alone chooses for a usual prompt, and by how much, in words.

The choice is that of `scheduler`, on idle models. Whether the trials tell the best from the next
one apart follows from how well both means are known, not from how much single requests differ.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from scheduler.costs.priors.origins import MEASURED, MODEL_CARD, SHIPPED
from scheduler.costs.profiles import LinearModel, ModelProfile, ProfileSet
from scheduler.decide import Scheduler
from scheduler.errors import SchedulerError
from scheduler.preferences import Weights
from scheduler.types import (
    NORMAL_90,
    Candidate,
    ClusterState,
    Interval,
    ModelState,
    RoutingRequest,
)

USUAL_INPUT_TOKENS = 32
LEAST_RATIO = 1e-6
STANDARD_ERROR = re.compile(r"\bstandard_error ([0-9.eE+-]+)")
WEIGHTS = {
    "accuracy": Weights(accuracy=1, energy=0, time=0),
    "energy": Weights(accuracy=0, energy=1, time=0),
    "time": Weights(accuracy=0, energy=0, time=1),
}


@dataclass(frozen=True, slots=True)
class Choice:
    """What one weight alone chooses.

    Attributes:
        weight: `accuracy`, `energy` or `time`.
        model: Chosen, `None` where nothing can be chosen by this weight.
        value: A share of right answers, joules or seconds.
        interval: Where the mean over many such requests lies with a probability of 90 %; `None`
            where it is not known.
        next_model: The second best of another name, `None` where there is one model only.
        next_value: Its value.
        better_by: Share that the chosen one takes less of energy or time; for the accuracy the
            difference of the shares.
        told_apart: Whether that is more than the intervals allow for; `None` where no intervals
            are known.
        without: Models that cannot take part for want of a value.
    """

    weight: str
    model: str | None
    value: float | None = None
    interval: tuple[float, float] | None = None
    next_model: str | None = None
    next_value: float | None = None
    better_by: float | None = None
    told_apart: bool | None = None
    without: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The same in a sentence, without the weight."""
        if self.model is None or self.value is None:
            return "no model has a figure to choose by"
        words = f"{self.model}, {self._amount(self.value)}"
        if self.next_value is not None and self.better_by is not None:
            words += f", {self._lead(self.next_value, self.better_by)}"
        if self.without:
            words += f" (not known of {', '.join(self.without)})"
        return words

    def _lead(self, next_value: float, better_by: float) -> str:
        if better_by == 0:
            return f"the same as {self.next_model}"
        if self.weight == "accuracy":
            lead = f"{100 * better_by:.1f} points more than {self.next_model}"
        else:
            lead = f"{better_by:.0%} less than {self.next_model}"
        lead += f" ({self._amount(next_value)})"
        if self.told_apart is False:
            lead += ": within the interval, the trials do not tell them apart"
        return lead

    def _amount(self, value: float) -> str:
        if self.weight == "accuracy":
            return f"{value:.1%} right"
        return f"{value:.3g} {'J' if self.weight == 'energy' else 's'}"


def choices(profiles: ProfileSet, states: Sequence[ModelState]) -> tuple[Choice, ...]:
    """What each weight alone chooses.

    Args:
        profiles: In use; the yardsticks come from them.
        states: Models with their profiles; those without one do not take part.
    """
    taking_part = [state for state in states if state.profile is not None]
    return tuple(_choice(weight, profiles, taking_part) for weight in WEIGHTS)


def idle_models(profiles: ProfileSet, models: Iterable[tuple[str, str | None]]) -> list[ModelState]:
    """Each model once, idle, with the profile that a router predicts with.

    Args:
        profiles: In use.
        models: Names and accelerators, `None` for any; the first one of a name counts.
    """
    states: dict[str, ModelState] = {}
    for model, accelerator in models:
        profile = profiles.find(model, accelerator) or profiles.find(model)
        states.setdefault(model, ModelState(model, profile=profile))
    return list(states.values())


def _choice(weight: str, profiles: ProfileSet, states: Sequence[ModelState]) -> Choice:
    profile_of = {state.model: state.profile for state in states if state.profile is not None}
    without: tuple[str, ...] = ()
    if weight == "accuracy":
        without = tuple(name for name, p in profile_of.items() if p.accuracy is None)
        states = [state for state in states if state.model not in without]
    if not states:
        return Choice(weight, None, without=without)
    request = RoutingRequest(
        decision_id="profile",
        input_tokens={state.model: USUAL_INPUT_TOKENS for state in states},
        weights=WEIGHTS[weight],
        policy="weighted",
    )
    state = ClusterState(tuple(states), profiles.version, profiles.reference)
    try:
        decision = Scheduler().decide(request, state)
    except SchedulerError:
        return Choice(weight, None, without=without)
    first = decision.chosen
    value = _value(weight, first)
    interval = _interval(weight, profile_of[first.model], value)
    choice = Choice(weight, first.model, value, _ends(interval), without=without)
    others = [c for c in decision.candidates if c.model != first.model]
    if not others:
        return choice
    sign = -1 if weight == "accuracy" else 1
    second = min(others, key=lambda c: sign * _value(weight, c))
    next_value = _value(weight, second)
    difference = (value - next_value) if weight == "accuracy" else next_value - value
    scale = 1.0 if weight == "accuracy" else next_value
    return replace(
        choice,
        next_model=second.model,
        next_value=next_value,
        better_by=max(difference / scale, 0.0) if scale > 0 else 0.0,
        told_apart=_told_apart(
            weight,
            (value, interval),
            (next_value, _interval(weight, profile_of[second.model], next_value)),
        ),
    )


def _value(weight: str, candidate: Candidate) -> float:
    prediction = candidate.prediction
    if weight == "accuracy":
        return prediction.accuracy or 0.0
    return prediction.energy_joules if weight == "energy" else prediction.runtime_s


def _interval(weight: str, profile: ModelProfile, value: float) -> Interval | None:
    """Where the mean over many such requests lies."""
    if weight == "accuracy":
        return _accuracy_interval(profile)
    model = profile.energy if weight == "energy" else profile.runtime
    tokens = max(round(profile.mean_output_tokens), 1)
    reach = NORMAL_90 * math.sqrt(_log_variance(model, profile.origin or MEASURED, tokens))
    return Interval(value * math.exp(-reach), value * math.exp(reach))


def _log_variance(model: LinearModel, origin: str, output_tokens: int) -> float:
    """Of the logarithm of the mean cost: single requests differ more than what trials average."""
    low, high = (max(ratio, LEAST_RATIO) for ratio in (model.ratio_low, model.ratio_high))
    single = (math.log(high / low) / 2 / NORMAL_90) ** 2
    beyond = model.uncertainty(USUAL_INPUT_TOKENS, output_tokens)
    if model.n < 1 or origin in (SHIPPED, MODEL_CARD):
        # How far off it is here no trial has said.
        return single + beyond
    if model.log_covariance:
        return single / model.n + model.log_variance + beyond
    if origin == MEASURED:
        return single * min(len(model.coefficients) / model.n, 1.0)
    return single


def _accuracy_interval(profile: ModelProfile) -> Interval | None:
    """From the standard error, where what measured the accuracy says it."""
    found = STANDARD_ERROR.search(profile.accuracy_source)
    if found is None or profile.accuracy is None:
        return None
    try:
        reach = NORMAL_90 * float(found[1])
    except ValueError:
        return None
    return Interval(max(profile.accuracy - reach, 0.0), min(profile.accuracy + reach, 1.0))


def _told_apart(
    weight: str,
    best: tuple[float, Interval | None],
    second: tuple[float, Interval | None],
) -> bool | None:
    """Whether the difference is more than both errors, which are independent, allow for."""
    (value, interval), (next_value, next_interval) = best, second
    if interval is None or next_interval is None:
        return None
    if weight == "accuracy":
        reach = math.hypot(value - interval.low, next_interval.high - next_value)
        return value - next_value > reach
    ends = (value, next_value, interval.high, next_interval.low)
    if not all(0 < end < math.inf for end in ends):
        return False
    reach = math.hypot(math.log(interval.high / value), math.log(next_value / next_interval.low))
    return math.log(next_value / value) > reach


def _ends(interval: Interval | None) -> tuple[float, float] | None:
    return None if interval is None else (interval.low, interval.high)


def as_json(found: Sequence[Choice]) -> list[dict[str, Any]]:
    """For scripts; `text` is the line of the table."""
    return [{**asdict(choice), "text": choice.text} for choice in found]


def print_choices(found: Sequence[Choice], console: Console) -> None:
    """One line for each weight."""
    console.print(
        f"what each weight alone chooses for {USUAL_INPUT_TOKENS} input tokens and an answer of "
        "usual length:",
        highlight=False,
    )
    table = Table.grid(padding=(0, 1))
    for choice in found:
        table.add_row(Text(f"{choice.weight}:", style="bold"), Text(choice.text))
    console.print(table)
