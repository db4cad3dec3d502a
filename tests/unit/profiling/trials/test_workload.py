import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiling.errors import InputError
from profiling.trials.log import TrialCosts, TrialKey
from profiling.trials.workload import (
    FULL,
    QUICK,
    Grid,
    Span,
    TrialPlan,
    already_run,
    plan_trials,
    prompt_token_ids,
)


@pytest.mark.parametrize("grid", [FULL, QUICK])
def test_a_plan_is_repeatable_and_another_seed_gives_another(grid: Grid) -> None:
    assert plan_trials(grid, seed=1) == plan_trials(grid, seed=1)
    assert plan_trials(grid, seed=1) != plan_trials(grid, seed=2)


@given(seed=st.integers(0, 2**32), n=st.integers(2, 40))
def test_lengths_reach_both_ends_and_every_stratum(seed: int, n: int) -> None:
    grid = Grid(Span(16, 2048), Span(4, 256), (1,), configurations=n, repeats=1)
    plan = plan_trials(grid, seed=seed)
    inputs = sorted(trial.input_tokens for trial in plan)
    assert (inputs[0], inputs[-1]) == (16, 2048)
    for i, length in enumerate(inputs):
        low, high = 16 * 128 ** (i / n), 16 * 128 ** ((i + 1) / n)
        assert round(low) <= length <= round(high)


def test_repeats_come_after_all_configurations_had_their_turn() -> None:
    plan = plan_trials(FULL, seed=0)
    first, second = plan[:40], plan[40:]
    assert [t.repeat for t in plan] == [0] * 40 + [1] * 40

    def configurations(trials: list[TrialPlan]) -> list[tuple[int, int, int]]:
        return [(t.input_tokens, t.output_tokens, t.concurrency) for t in trials]

    assert configurations(first) != configurations(second)
    assert sorted(configurations(first)) == sorted(configurations(second))


def test_concurrencies_have_their_shares() -> None:
    quick = plan_trials(QUICK, seed=5)[: QUICK.configurations]
    assert Counter(t.concurrency for t in quick) == {1: 5, 2: 1, 4: 1, 8: 5}
    assert Counter(t.concurrency for t in plan_trials(FULL, seed=5)) == {1: 42, 2: 14, 4: 12, 8: 12}


def log_range_of(lengths: Span | tuple[int, ...]) -> float:
    assert isinstance(lengths, Span)
    return math.log(lengths.high / lengths.low)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("grid", "enough"), [(QUICK, 6), (FULL, 10)])
def test_the_first_trials_cover_the_whole_range(grid: Grid, enough: int, seed: int) -> None:
    plan = plan_trials(grid, seed=seed)
    for values, log_range in (
        ([t.input_tokens for t in plan], log_range_of(grid.input_tokens)),
        ([t.output_tokens for t in plan], log_range_of(grid.output_tokens)),
    ):
        covered = np.log(max(values[:enough]) / min(values[:enough]))
        assert covered > 0.6 * log_range
    loads = {t.concurrency for t in plan[:enough]}
    assert {1, 8} <= loads
    assert plan[0].concurrency == 1


def test_a_quick_plan_begins_with_the_extremes() -> None:
    plan = plan_trials(QUICK, seed=3)
    ends = [(t.input_tokens, t.output_tokens, t.concurrency) for t in plan[:8]]
    assert ends[:4] == [(16, 64, 1), (512, 4, 1), (16, 4, 1), (16, 64, 8)]
    assert set(ends) == {(i, o, c) for i in (16, 512) for o in (4, 64) for c in (1, 8)}


def test_repeats_of_a_quick_plan_have_its_order_and_prompts_of_their_own() -> None:
    plan = plan_trials(QUICK, seed=3)
    n = QUICK.configurations
    for first, again in zip(plan[:n], plan[n : 2 * n], strict=True):
        assert (first.input_tokens, first.output_tokens, first.concurrency) == (
            again.input_tokens, again.output_tokens, again.concurrency,
        )  # fmt: skip
        assert (first.repeat, again.repeat) == (0, 1)
    assert len({trial.seed for trial in plan}) == len(plan)


@given(context=st.integers(2, 3000), n=st.integers(1, 14))
def test_a_quick_plan_of_any_size_fits_any_context(context: int, n: int) -> None:
    grid = Grid(Span(16, 512), Span(4, 64), (1, 8), n, 2, extremes_first=True)
    plan = plan_trials(grid, seed=0, max_model_len=context)
    assert len(plan) == 2 * n
    assert all(t.input_tokens + t.output_tokens <= context for t in plan)


def test_configurations_keep_their_distance() -> None:
    def closest(plan: list[TrialPlan]) -> float:
        points = np.log([(t.input_tokens, t.output_tokens, t.concurrency) for t in plan])
        points /= np.ptp(points, axis=0)
        gaps = np.linalg.norm(points[:, None] - points, axis=2)
        return float(gaps[np.triu_indices(len(plan), k=1)].min())

    # The first grid that comes has 0.13 on average.
    grid = Grid(Span(16, 512), Span(4, 64), (1, 1, 1, 8), configurations=12, repeats=1)
    assert np.mean([closest(plan_trials(grid, seed=seed)) for seed in range(10)]) > 0.2


def test_equal_lengths_everywhere_are_a_plan_too() -> None:
    plan = plan_trials(Grid(Span(8, 8), Span(4, 4), (1,), configurations=3, repeats=2), seed=0)
    assert [(t.input_tokens, t.output_tokens, t.repeat) for t in plan] == [
        (8, 4, repeat) for repeat in (0, 0, 0, 1, 1, 1)
    ]


def test_concurrencies_are_used_in_turn() -> None:
    grid = Grid(Span(8, 8), Span(4, 4), (2, 4, 6), configurations=6, repeats=1)
    assert sorted(t.concurrency for t in plan_trials(grid, seed=0)) == [2, 2, 4, 4, 6, 6]


@given(context=st.integers(2, 3000), seed=st.integers(0, 99))
def test_every_trial_fits_the_context(context: int, seed: int) -> None:
    for trial in plan_trials(FULL, seed=seed, max_model_len=context):
        assert trial.input_tokens >= 1
        assert trial.output_tokens >= 1
        assert trial.input_tokens + trial.output_tokens <= context


def test_prompts_of_one_plan_have_different_seeds() -> None:
    seeds = [t.seed for t in plan_trials(FULL, seed=0)]
    assert len(set(seeds)) == len(seeds)


@pytest.mark.parametrize("seed", range(5))
def test_quick_profiles_a_quiet_model_in_about_20_s_on_a_slow_cpu(seed: int) -> None:
    plan = plan_trials(QUICK, seed=seed)[: QUICK.configurations]
    seconds = sum(0.0007 * t.concurrency * t.input_tokens + 0.04 * t.output_tokens for t in plan)
    assert 10 < seconds < 25


def test_a_resumed_job_knows_what_was_run_and_what_it_cost() -> None:
    plan = [TrialPlan(8, 4, 1, repeat, repeat) for repeat in range(3)] + [TrialPlan(9, 4, 1, 0, 3)]
    first, second, other = (TrialCosts(seconds, None) for seconds in (1.0, 2.0, 3.0))
    costs = {TrialKey("a", "cpu", 1, 8, 4): [first, second], TrialKey("b", "cpu", 1, 9, 4): [other]}
    assert already_run(plan, costs, "a", "cpu") == {0: first, 1: second}
    assert already_run(plan, costs, "b", "cpu") == {3: other}
    assert already_run(plan, costs, "a", "gpu") == {}


@given(n=st.integers(1, 300), seed=st.integers(0, 2**31))
def test_prompts_have_the_exact_length(n: int, seed: int) -> None:
    ids = prompt_token_ids(n, seed=seed, vocab_size=60)
    assert len(ids) == n
    assert all(type(i) is int and 0 <= i < 60 for i in ids)


def test_prompts_of_other_seeds_share_no_cacheable_prefix() -> None:
    prompts = {
        tuple(prompt_token_ids(16, seed=seed, vocab_size=49152))
        for seed in (0, (0, 1), 1, (1, 1), (1, 2))
    }
    assert len(prompts) == 5


def test_impossible_wishes_are_named() -> None:
    with pytest.raises(InputError, match=r"max_model_len: must be at least 2, got 1"):
        plan_trials(QUICK, seed=0, max_model_len=1)
    with pytest.raises(InputError, match=r"1 <= low <= high, got 5\.\.4"):
        Span(5, 4)
    with pytest.raises(InputError, match=r"whole numbers above 0, got \(0,\)"):
        plan_trials(Grid(Span(1, 1), Span(1, 1), (0,), 1, 1), seed=0)
    with pytest.raises(InputError, match="input_tokens: must be at least 1, got 0"):
        prompt_token_ids(0, seed=0, vocab_size=5)
    with pytest.raises(InputError, match="vocab_size: must be at least 1, got 0"):
        prompt_token_ids(1, seed=0, vocab_size=0)
