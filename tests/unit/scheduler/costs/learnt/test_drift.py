import json
import math
import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.costs.learnt.drift import (
    ENOUGH_RESIDUALS,
    FORGET_S,
    GRACE_S,
    HALF_LIFE_S,
    RESIDUALS,
    Corrections,
    CostCorrector,
)
from scheduler.costs.observations import Outcome
from scheduler.errors import ProfileError
from scheduler.types import NO_CORRECTION, Correction

OUTCOME = Outcome(
    model="a",
    accelerator="cpu",
    fit_id="f",
    predicted_runtime_s=2.0,
    told_runtime_s=2.0,
    runtime_s=3.0,
    predicted_energy_joules=10.0,
    told_energy_joules=10.0,
    energy_joules=5.0,
)
RATIOS = st.floats(min_value=-2, max_value=2)
PREDICTIONS = st.floats(min_value=0.01, max_value=100)


def feed(corrector: CostCorrector, levels: Sequence[float], predicted: float = 1.0) -> None:
    """Outcomes that were told what was known when the one before had ended."""
    for level in levels:
        told = predicted * corrector.correction.factor
        corrector.observe(predicted, told, predicted * math.exp(level))


def follow(
    corrector: CostCorrector, levels: Sequence[float], delay: int = 1
) -> list[tuple[float, Correction]]:
    """What was told of each level, known `delay` outcomes later, as log(actual / told)."""
    corrections: list[Correction] = []
    for i in range(len(levels)):
        if i >= delay:
            known = i - delay
            corrector.observe(1.0, corrections[known].factor, math.exp(levels[known]))
        corrections.append(corrector.correction)
    return [(level - math.log(c.factor), c) for level, c in zip(levels, corrections, strict=True)]


def noise(count: int, spread: float, seed: int = 0) -> list[float]:
    rng = random.Random(seed)
    return [rng.gauss(0, spread) for _ in range(count)]


def covered(told: Sequence[tuple[float, Correction]]) -> float:
    inside = [
        correction.low <= math.exp(residual) <= correction.high
        for residual, correction in told
        if correction.low is not None and correction.high is not None
    ]
    return sum(inside) / len(inside)


def test_nothing_is_corrected_at_first() -> None:
    assert CostCorrector().correction == NO_CORRECTION


def test_first_outcome_by_hand() -> None:
    corrector = CostCorrector()
    corrector.observe(2.0, 2.0, 2.0 * math.exp(0.1))
    # Run 0, from the start at 0 with a variance of 0.01 and a weight of 1:
    density = 0.9 * math.exp(-(0.1**2) / (2 * 0.02)) / math.sqrt(2 * math.pi * 0.02)
    gain = density / (density + 0.05)
    run_0, mean_0 = 0.97 * (density + 0.05), 0.1 * gain / (1 + gain)
    # Run 1, begun by this outcome and drawn to the lasting level of 0:
    run_1, mean_1 = 0.03 * 0.2 / (math.pi * 0.06), 0.1 - 0.1 * 0.01 / 0.06
    level = (run_0 * mean_0 + run_1 * mean_1) / (run_0 + run_1)
    assert level == pytest.approx(0.049917, abs=1e-6)
    assert corrector.correction.factor == pytest.approx(math.exp(level))
    assert corrector.correction.observations == 1


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_values_that_cannot_be_are_ignored(bad: float, place: int) -> None:
    corrector = CostCorrector()
    feed(corrector, [0.3] * 30)
    before = json.dumps(corrector.to_dict())
    values = [1.0, 1.0, 1.0]
    values[place] = bad
    corrector.observe(*values)
    assert json.dumps(corrector.to_dict()) == before


@given(st.lists(st.tuples(PREDICTIONS, RATIOS), min_size=30, max_size=40), st.floats(1e-3, 1e3))
@settings(max_examples=50)
def test_the_unit_changes_nothing(outcomes: list[tuple[float, float]], unit: float) -> None:
    one, other = CostCorrector(), CostCorrector()
    for predicted, level in outcomes:
        feed(one, [level], predicted)
        feed(other, [level], predicted * unit)
    assert other.correction.factor == pytest.approx(one.correction.factor, rel=1e-6)
    assert other.correction.low == pytest.approx(one.correction.low, rel=1e-5)


@given(st.lists(RATIOS, max_size=60))
@settings(max_examples=50)
def test_faster_and_slower_are_mirror_images(levels: list[float]) -> None:
    one, other = CostCorrector(), CostCorrector()
    feed(one, levels)
    feed(other, [-level for level in levels])
    assert one.correction.factor * other.correction.factor == pytest.approx(1)
    if one.correction.low is not None and other.correction.high is not None:
        assert one.correction.low * other.correction.high == pytest.approx(1, rel=1e-4)


@given(
    st.lists(st.tuples(*[st.floats(min_value=5e-324, max_value=1e308)] * 3), max_size=60),
    st.floats(min_value=0, max_value=1e9),
)
@settings(max_examples=50)
def test_a_correction_is_always_usable(
    outcomes: list[tuple[float, float, float]], seconds: float
) -> None:
    corrector = CostCorrector()
    for predicted, told, actual in outcomes:
        corrector.observe(predicted, told, actual)
    for _ in range(2):
        correction = corrector.correction
        assert 0 < correction.factor < math.inf
        if correction.low is not None or correction.high is not None:
            assert correction.low is not None
            assert correction.high is not None
            assert 0 < correction.low <= correction.high < math.inf
        corrector.decay(seconds)


def test_noise_is_averaged_out() -> None:
    corrector = CostCorrector()
    told = follow(corrector, [0.4 + x for x in noise(400, 0.1)])
    errors = [math.log(correction.factor) - 0.4 for _, correction in told[100:]]
    assert math.sqrt(sum(error**2 for error in errors) / len(errors)) < 0.03


def test_one_outlier_is_no_jump_but_three_are() -> None:
    corrector = CostCorrector()
    feed(corrector, noise(100, 0.05))
    feed(corrector, [math.log(2)])
    assert corrector.correction.factor == pytest.approx(1, abs=0.1)
    feed(corrector, [math.log(2)] * 2)
    assert corrector.correction.factor == pytest.approx(2, rel=0.05)


def test_ten_times_slower_is_believed_too() -> None:
    corrector = CostCorrector()
    feed(corrector, noise(100, 0.05))
    feed(corrector, [math.log(10)] * 4)
    assert corrector.correction.factor == pytest.approx(10, rel=0.1)


def test_a_short_request_says_less() -> None:
    def after(predicted: float) -> float:
        corrector = CostCorrector()
        feed(corrector, noise(50, 0.05), predicted=10.0)
        feed(corrector, [0.15] * 5, predicted)
        return corrector.correction.factor

    assert after(10.0) > after(1.0) > 1.005


def test_learns_how_late_outcomes_are() -> None:
    for delay in (1, 8, 21):
        corrector = CostCorrector()
        follow(corrector, noise(400, 0.1), delay)
        assert corrector.lag == pytest.approx(delay - 1, abs=0.01)


def test_an_unknown_factor_says_nothing_about_the_lag() -> None:
    corrector = CostCorrector()
    for level in noise(50, 0.1):
        corrector.observe(1.0, 1.234, math.exp(level))
    assert corrector.lag == 0


def test_a_short_burst_is_trusted_less_the_later_outcomes_are() -> None:
    def after_burst(delay: int) -> float:
        corrector = CostCorrector()
        follow(corrector, [*noise(300, 0.05), *[0.5] * 6], delay)
        feed(corrector, [0.5] * 2)
        return math.log(corrector.correction.factor)

    assert after_burst(1) == pytest.approx(0.5, abs=0.03)
    assert after_burst(21) < 0.3


def test_an_absurd_outcome_does_no_harm_where_averages_count() -> None:
    corrector = CostCorrector()
    follow(corrector, noise(300, 0.05), delay=21)
    feed(corrector, [10.0])
    assert corrector.correction.factor == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("spread", [0.03, 0.08])
@pytest.mark.parametrize("delay", [1, 3])
def test_follows_a_machine_that_others_use_for_a_minute_at_a_time(
    spread: float, delay: int
) -> None:
    rng = random.Random(3)
    levels: list[float] = []
    ages: list[int] = []
    for _ in range(20):
        for slower in (rng.uniform(0.2, 0.7), 0.0):
            count = rng.randint(20, 60)
            levels += [slower + rng.gauss(0, spread) for _ in range(count)]
            ages += range(count)
    told = follow(CostCorrector(), levels, delay)
    errors = [abs(math.expm1(-residual)) for residual, _ in told]
    settled = [e for e, age in zip(errors, ages, strict=True) if age >= delay + 5]
    # sqrt(2 / pi) * spread is the error of somebody who knows the levels.
    assert sum(settled) / len(settled) < 1.25 * math.sqrt(2 / math.pi) * spread
    assert 0.85 < covered(told[50:]) < 0.95


@pytest.mark.parametrize("delay", [1, 20])
def test_intervals_hold_what_they_promise_while_the_level_wanders(delay: int) -> None:
    rng = random.Random(1)
    level = 0.0
    levels: list[float] = []
    for _ in range(3000):
        level += rng.gauss(0, 0.02) + (rng.random() < 0.002) * rng.choice((-0.5, 0.5))
        levels.append(level + rng.gauss(0, 0.1))
    told = follow(CostCorrector(), levels, delay)
    assert 0.87 < covered(told) < 0.93
    # Wider than what the noise alone would need, for the level is not known.
    assert told[-1][1].low is not None
    assert told[-1][1].low < math.exp(-1.64 * 0.1)


def test_no_interval_from_a_few_outcomes() -> None:
    corrector = CostCorrector()
    # The first one was told what the profile alone says: no residual of a correction.
    feed(corrector, noise(ENOUGH_RESIDUALS, 0.1))
    assert corrector.correction.low is corrector.correction.high is None
    feed(corrector, [0.0])
    assert corrector.correction.low is not None
    assert corrector.correction.high is not None


def test_a_wrong_profile_does_not_widen_the_first_intervals() -> None:
    # The outcomes of the first 20 decisions are three times as many as an interval may leave out.
    told = follow(CostCorrector(), [1.0 + x for x in noise(150, 0.05)], delay=20)
    high = told[-1][1].high
    assert high is not None
    assert high < 1.5


def test_the_ends_of_an_interval_stay_apart_when_nothing_is_ever_outside() -> None:
    corrector = CostCorrector()
    # So regular that an interval of its quantiles holds all of them.
    feed(corrector, [0.1, -0.1] * 3000)
    _, below, above, _ = corrector.to_dict()["residuals"]
    assert 0 < below <= 0.2
    assert 0 < above <= 0.2
    assert corrector.correction.low == pytest.approx(math.exp(-0.1), abs=0.02)
    assert corrector.correction.high == pytest.approx(math.exp(0.1), abs=0.02)


def test_reading_computes_nothing() -> None:
    corrector = CostCorrector()
    feed(corrector, [0.1] * 30)
    assert corrector.correction is corrector.correction


def test_the_factor_stays_for_a_minute_then_goes_halfway_back_in_ten() -> None:
    corrector = CostCorrector()
    feed(corrector, [0.6 + x for x in noise(100, 0.02)])
    there = corrector.correction
    corrector.decay(GRACE_S)
    assert corrector.correction is there
    corrector.decay(HALF_LIFE_S)
    assert corrector.idle_s == GRACE_S + HALF_LIFE_S
    halfway = corrector.correction
    assert math.log(halfway.factor) == pytest.approx(math.log(there.factor) / 2)
    # What was seen last and what the profile says are both possible now.
    assert halfway.low is not None
    assert halfway.high is not None
    assert there.high is not None
    assert halfway.factor * halfway.low < halfway.factor
    assert halfway.factor * halfway.high > there.factor
    corrector.decay(FORGET_S)
    assert corrector.correction.factor == pytest.approx(1)
    assert corrector.correction.low is corrector.correction.high is None
    assert corrector.correction.observations == 100


def test_an_outcome_starts_the_clock_again() -> None:
    corrector = CostCorrector()
    feed(corrector, [0.5] * 50)
    corrector.decay(GRACE_S + HALF_LIFE_S)
    feed(corrector, [0.5] * 2)
    assert corrector.idle_s == 0
    assert corrector.correction.factor == pytest.approx(math.exp(0.5), rel=0.1)
    there = corrector.correction
    corrector.decay(GRACE_S)
    assert corrector.correction is there


@given(st.lists(st.floats(min_value=0, max_value=500), min_size=1, max_size=20))
@settings(max_examples=30)
def test_time_adds_up(steps: list[float]) -> None:
    many, one = CostCorrector(), CostCorrector()
    for corrector in (many, one):
        feed(corrector, [0.5 + x for x in noise(60, 0.05)])
    for step in steps:
        many.decay(step)
    one.decay(sum(steps))
    assert many.correction.factor == pytest.approx(one.correction.factor, rel=1e-6)


@pytest.mark.parametrize("seconds", [0.0, -5.0, math.nan])
def test_no_time_changes_nothing(seconds: float) -> None:
    corrector = CostCorrector()
    feed(corrector, [0.5] * 50)
    corrector.decay(GRACE_S)
    there = corrector.correction
    corrector.decay(seconds)
    assert corrector.correction is there
    assert corrector.idle_s == GRACE_S


@given(st.lists(RATIOS, max_size=60), st.floats(min_value=0, max_value=3000))
@settings(max_examples=30)
def test_a_restart_changes_nothing(levels: list[float], idle: float) -> None:
    before = CostCorrector()
    feed(before, levels)
    before.decay(idle)
    after = CostCorrector.from_dict(json.loads(json.dumps(before.to_dict())))
    assert after.to_dict() == before.to_dict()
    assert after.correction == before.correction
    for corrector in (before, after):
        feed(corrector, [0.1, -0.2, 0.3])
        corrector.decay(100)
    assert after.correction == before.correction


def test_memory_is_bounded() -> None:
    corrections = Corrections()
    for x in noise(3 * RESIDUALS, 0.3):
        ratio = math.exp(x)
        corrections.observe(replace(OUTCOME, runtime_s=2 * ratio, energy_joules=10 * ratio))
    assert len(corrections.to_json()) < 10_000


def test_corrections_are_kept_apart() -> None:
    corrections = Corrections()
    for _ in range(30):
        corrections.observe(OUTCOME)
    assert corrections.runtime("a", "cpu", "f").factor == pytest.approx(1.5, rel=0.05)
    assert corrections.energy("a", "cpu", "f").factor == pytest.approx(0.5, rel=0.05)
    for key in (("b", "cpu", "f"), ("a", "gpu", "f"), ("a", "cpu", "another fit")):
        assert corrections.runtime(*key) is NO_CORRECTION
        assert corrections.energy(*key) is NO_CORRECTION
        assert corrections.idle_s(*key) is None
    assert corrections.observations == 30


def test_an_outcome_without_energy_still_tells_its_runtime() -> None:
    corrections = Corrections()
    corrections.observe(replace(OUTCOME, energy_joules=None))
    assert corrections.runtime("a", "cpu", "f").observations == 1
    assert corrections.energy("a", "cpu", "f") is NO_CORRECTION
    assert corrections.observations == 1


def test_what_gets_no_traffic_decays_and_is_dropped_after_a_day() -> None:
    corrections = Corrections()
    for model in ("a", "b"):
        for _ in range(30):
            corrections.observe(replace(OUTCOME, model=model))
    corrections.elapse(GRACE_S)
    assert corrections.idle_s("a", "cpu", "f") == GRACE_S
    before = corrections.runtime("a", "cpu", "f").factor
    corrections.observe(replace(OUTCOME, model="b"))
    corrections.elapse(HALF_LIFE_S)
    assert corrections.runtime("a", "cpu", "f").factor == pytest.approx(math.sqrt(before), rel=1e-2)
    assert corrections.idle_s("b", "cpu", "f") == HALF_LIFE_S
    corrections.elapse(FORGET_S - HALF_LIFE_S)
    assert corrections.idle_s("a", "cpu", "f") is None
    assert corrections.idle_s("b", "cpu", "f") == FORGET_S
    assert corrections.observations == 61


def test_a_model_whose_energy_is_never_measured_is_kept() -> None:
    corrections = Corrections()
    for _ in range(3):
        corrections.observe(replace(OUTCOME, energy_joules=None))
        corrections.elapse(FORGET_S / 2)
    assert corrections.idle_s("a", "cpu", "f") == FORGET_S / 2


def test_corrections_survive_as_text() -> None:
    corrections = Corrections()
    for x in noise(60, 0.2):
        corrections.observe(replace(OUTCOME, runtime_s=math.exp(x)))
        corrections.observe(replace(OUTCOME, model="b", energy_joules=None))
    corrections.elapse(30)
    again = Corrections.from_json(corrections.to_json())
    assert again.to_json() == corrections.to_json()
    assert again.observations == 120
    assert again.idle_s("b", "cpu", "f") == 30
    for model in ("a", "b"):
        key = (model, "cpu", "f")
        assert again.runtime(*key) == corrections.runtime(*key)
        assert again.energy(*key) == corrections.energy(*key)


def broken(*path: str | int, value: object) -> str:
    corrections = Corrections()
    for _ in range(30):
        corrections.observe(OUTCOME)
    data = json.loads(corrections.to_json())
    place = data
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return json.dumps(data)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        '{"schema_version":1}',
        Corrections().to_json()[:-5],
        broken("schema_version", value=2),
        broken("observations", value="many"),
        broken("corrections", 0, value=["a", "cpu"]),
        broken("corrections", 0, 3, value=None),
        broken("corrections", 0, 3, "scalars", value=[0.0]),
        broken("corrections", 0, 3, "level", "variance", value=math.nan),
        broken("corrections", 0, 3, "level", "variance", value=-1.0),
        broken("corrections", 0, 3, "level", "recent", value=1e6),
        broken("corrections", 0, 3, "level", "runs", value=[]),
        broken("corrections", 0, 3, "level", "runs", 0, "weight", value=0),
        broken("corrections", 0, 3, "level", "runs", 0, "mean", value="0"),
        broken("corrections", 0, 3, "residuals", 0, value=["0.1"]),
    ],
)
def test_broken_text_is_refused(text: str) -> None:
    with pytest.raises(ProfileError, match="corrections: not readable"):
        Corrections.from_json(text)
