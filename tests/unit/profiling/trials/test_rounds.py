import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiling.trials.log import TrialCosts
from profiling.trials.rounds import MARGIN, PROBES, Pace, can_finish, rounds
from profiling.trials.workload import FULL, QUICK, Grid, Span, TrialPlan

N, EXTREMES = QUICK.configurations, QUICK.extremes
SMALL = Grid(Span(1, 9), Span(1, 9), (1, 2), 10, 4, extremes_first=True)


def play(grid: Grid, costs: list[dict[int, list[float]]]) -> list[int]:
    """The rounds where the runs of a configuration cost this; the last figure holds on."""
    runs: list[dict[int, TrialCosts | None]] = [{} for _ in costs]
    order: list[int] = []
    for index in rounds(grid, runs):
        order.append(index)
        repeat, configuration = divmod(index, grid.configurations)
        for run, of in zip(runs, costs, strict=True):
            series = of.get(configuration, [1.0])
            run[index] = TrialCosts(series[min(repeat, len(series) - 1)], None)
    return order


def test_other_grids_follow_their_plan() -> None:
    assert play(FULL, [{}]) == list(range(80))


def test_a_quiet_machine_has_two_repeats() -> None:
    assert play(QUICK, [{}, {}]) == [*range(EXTREMES), N, N + 1, *range(EXTREMES, N)]


def test_runs_that_are_apart_are_repeated_until_two_agree() -> None:
    order = play(QUICK, [{}, {1: [1.0, 1.5, 1.05]}])
    # The second run of configuration 1 differs, the third agrees with the first.
    assert order[EXTREMES : EXTREMES + 3] == [N, N + 1, 2 * N + 1]
    assert 3 * N + 1 not in order
    # So the machine is noisy, and all others are run twice too.
    assert sorted(order) == sorted([*range(N), *range(N, 2 * N), 2 * N + 1])


def test_a_configuration_is_run_four_times_at_most() -> None:
    order = play(QUICK, [{0: [1.0, 2.0, 4.0, 8.0]}])
    assert [index // N for index in order if index % N == 0] == [0, 1, 2, 3]


def test_energy_that_is_apart_counts_too() -> None:
    runs: list[dict[int, TrialCosts | None]] = [{}]
    order: list[int] = []
    for index in rounds(QUICK, runs):
        order.append(index)
        runs[0][index] = TrialCosts(1.0, 5.0 if index < N else 9.0)
    assert 2 * N in order


def test_trials_given_up_and_failed_counters_are_no_noise() -> None:
    runs: list[dict[int, TrialCosts | None]] = [{}]
    order: list[int] = []
    for index in rounds(QUICK, runs):
        order.append(index)
        runs[0][index] = None if index % 2 else TrialCosts(1.0, None)
    assert len(order) == N + PROBES


@given(
    series=st.dictionaries(
        st.integers(0, 9), st.lists(st.floats(0.1, 10), min_size=1, max_size=4), max_size=10
    )
)
def test_every_round_comes_once_and_a_repeat_after_what_it_repeats(
    series: dict[int, list[float]],
) -> None:
    order = play(SMALL, [series, {}])
    assert len(set(order)) == len(order)
    for place, index in enumerate(order):
        assert index < 10 or index - 10 in order[:place]
    assert set(range(10)) <= set(order)


def plan(tin: int, tout: int, side: int = 1) -> TrialPlan:
    return TrialPlan(tin, tout, side, 0, 0)


def test_the_pace_is_that_of_the_trials() -> None:
    pace = Pace("cpu")
    assert pace.expects(plan(16, 64)) is None
    pace.took(plan(16, 64), 3.0)
    assert pace.expects(plan(16, 64)) == pytest.approx(3.0, rel=0.01)
    shorter, longer = pace.expects(plan(16, 4)), pace.expects(plan(512, 64, 8))
    assert shorter is not None
    assert longer is not None
    assert shorter < 1.0
    assert longer > 3.0
    pace.took(plan(16, 64), 9.0)
    assert pace.expects(plan(16, 64)) == pytest.approx(9.0, rel=0.01)


def test_a_round_is_begun_only_where_it_can_be_finished() -> None:
    assert can_finish([None, None], 0.1)
    assert not can_finish([None], 0.0)
    assert can_finish([1.0, 2.0], 3.0 * MARGIN)
    assert not can_finish([1.0, 2.0], 2.9 * MARGIN)
    assert can_finish([1.0], math.inf)
