"""Replays of recorded answers: what they may see, and what they must not lose to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from worth_estimates import PromptEstimates, estimate
from worth_lengths import report_lengths
from worth_policies import OURS, Rates, reach, replay_table, roster_of, shares_reached
from worth_sequential import Settings, replay_sequential
from worth_table import AnswerTable, read_answer_table

from profiling.quality.answer_table import COLUMNS, numbered
from profiling.quality.routing_metrics import cost_at

MODELS = ("small", "middle", "large")


def made(n: int, seed: int) -> AnswerTable:
    """Prompts of two kinds; the shorter ones are easier, right answers agree, wrong ones do not."""
    rng = np.random.default_rng(seed)
    words = rng.integers(3, 40, n)
    kinds = tuple(rng.choice(["sum", "proof"], n).tolist())
    hard = words / 40 + rng.normal(scale=0.3, size=n) + 0.3 * (np.array(kinds) == "proof")
    scores = (hard[:, None] < np.array([0.5, 0.8, 1.1])) * 1.0
    answers = np.where(scores == 1, "7", rng.integers(100, 10**6, (n, 3)).astype(str))
    tokens = np.exp(rng.normal(4, 0.3, (n, 3)) + hard[:, None])
    prompts = tuple(
        f"{kind} {i} seed {seed} " + "word " * count
        for i, (kind, count) in enumerate(zip(kinds, words, strict=True))
    )
    size = np.array([1.0, 8.0, 60.0])
    return AnswerTable(prompts, kinds, MODELS, size, scores, answers.astype(object), tokens)


Part = tuple[AnswerTable, PromptEstimates]


@pytest.fixture(scope="module")
def parts() -> tuple[Part, Part]:
    learn, choose = made(240, 1), made(200, 2)
    first, second = estimate(learn, choose)
    return (learn, first), (choose, second)


def test_looking_at_answers_saves_more_than_every_plain_alternative(
    parts: tuple[Part, Part],
) -> None:
    run = replay_table(*parts, Rates(None))
    reached = shares_reached([run])
    ours = reached[OURS]["99"]
    assert ours is not None
    for policy in ("prompt length", "the kind of task alone", "mixing two models at random"):
        other = reached[policy]["99"]
        assert other is None or ours < other
    oracle = reached["oracle"]["99"]
    assert oracle is not None
    assert oracle < ours
    assert run.roster == MODELS


def test_it_pays_for_everything_that_it_asks(parts: tuple[Part, Part]) -> None:
    """At a price of nothing all models may be asked, and then all of them are paid for."""
    learn, choose = parts
    unit = learn[0].billions
    done = replay_sequential(learn, choose, unit, Settings(limits=False))
    means = choose[0].tokens.mean(axis=0) * unit
    paid = done.asked @ means / means[2]
    # Whom it asks depends on the prompt, so that the product is only about right.
    assert done.curve.cost == pytest.approx(paid, rel=0.35, abs=0.01)
    assert (done.asked.sum(axis=1) >= 1 - 1e-9).all(), "somebody is always asked"


def test_no_decision_sees_outcomes_that_it_has_not_paid_for(parts: tuple[Part, Part]) -> None:
    """With other scores of the prompts to choose on it asks the same models."""
    learn, (choose, estimates) = parts
    wrong = AnswerTable(
        choose.prompts,
        choose.kinds,
        choose.models,
        choose.billions,
        1 - choose.scores,
        choose.answers,
        choose.tokens,
    )
    runs = [
        replay_sequential(learn, (table, estimates), learn[0].billions, Settings())
        for table in (choose, wrong)
    ]
    assert np.array_equal(runs[0].asked, runs[1].asked)
    assert np.array_equal(runs[0].curve.cost, runs[1].curve.cost)
    assert not np.array_equal(runs[0].curve.accuracy, runs[1].curve.accuracy)


def test_models_that_are_beaten_are_not_on_the_roster() -> None:
    table = made(200, 3)
    scores = np.column_stack((table.scores, np.zeros(200)))
    tokens = np.column_stack((table.tokens, table.tokens[:, 2]))
    more = AnswerTable(
        table.prompts,
        table.kinds,
        (*MODELS, "bad"),
        np.array([1.0, 8.0, 60.0, 50.0]),
        scores,
        np.column_stack((table.answers, table.answers[:, 0])),
        tokens,
    )
    assert roster_of(more, more.billions) == MODELS


def test_intervals_need_three_splits(parts: tuple[Part, Part]) -> None:
    run = replay_table(*parts, Rates(None))
    assert reach([run, run, run])[OURS]["95"] == pytest.approx(0.0)
    assert cost_at(run.curves[OURS], 2.0) is None


def test_lengths_are_judged_by_error_and_coverage() -> None:
    reports = report_lengths(made(300, 1), made(300, 2))
    assert [report.model for report in reports] == sorted(MODELS)
    for report in reports:
        assert report.coverage == pytest.approx(0.9, abs=0.06)
        assert report.total == pytest.approx(1.0, abs=0.12)


@pytest.mark.parametrize(("correct", "cluster"), [(1, 0), (0, -1)])
def test_an_empty_text_counts_as_an_answer_only_where_it_is_often_right(
    tmp_path: Path, correct: int, cluster: int
) -> None:
    rows = [
        ("gsm", model, 7, i, f"prompt {i}", correct, "", 5, 9)
        for i in range(40)
        for model in ("a", "b")
    ]
    path = tmp_path / "o.csv"
    pd.DataFrame(rows, columns=list(COLUMNS)).to_csv(path, index=False)
    assert (numbered(read_answer_table(path).answers)[0] == cluster).all()
