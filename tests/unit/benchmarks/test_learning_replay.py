from __future__ import annotations

import bandit
import numpy as np
import pytest
from bandit import WAYS, prior, replay, rewards, summary, table_of
from bandit_figure import draw_regret
from rich.console import Console

from profiling.quality.outcomes import Outcomes


def made_up(count: int = 210) -> Outcomes:
    """`dear` is right on code and `cheap` on letters; that is not what their means say."""
    kinds = np.arange(count) % 3 == 0
    prompts = tuple(
        f"def f{n}(x): return x + {n}" if code else f"Dear Ann, letter {n}"
        for n, code in enumerate(kinds)
    )
    scores = np.stack([kinds, ~kinds], axis=1).astype(float)
    costs = np.tile([4.0, 1.0], (count, 1))
    return Outcomes(prompts, ("dear", "cheap"), scores, costs)


def test_rewards_by_hand() -> None:
    table = made_up(2)
    # usual 2: frugality 2/6 and 2/3.
    earned = rewards(table, usual=2.0)
    assert earned[0] == pytest.approx([0.8 + 0.2 / 3, 0.2 * 2 / 3])
    assert earned[1] == pytest.approx([0.2 / 3, 0.8 + 0.2 * 2 / 3])


@pytest.mark.parametrize("measured", [True, False])
def test_learning_finds_what_the_means_hide(measured: bool) -> None:
    table = made_up()
    state = prior(table, table if measured else None)
    regret = {way: replay(table, state, settings, 0) for way, settings in WAYS.items()}
    still = regret["weighted"][-100:].mean()
    assert still > 0.2
    for way in ("LinUCB", "Thompson sampling"):
        assert regret[way][-100:].mean() < still / 2
    assert regret["bandit without feedback"] == pytest.approx(regret["weighted"])
    assert np.array_equal(regret["LinUCB"], replay(table, state, WAYS["LinUCB"], 0))


def test_nothing_is_learnt_of_what_nobody_rates() -> None:
    table = made_up(60)
    state = prior(table, None)
    silent = replay(table, state, WAYS["greedy"], 0, share=0.0)
    assert silent == pytest.approx(replay(table, state, WAYS["bandit without feedback"], 0))


def test_exploration_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    table = made_up(200)
    state = prior(table, table)
    monkeypatch.setattr(bandit, "EXPLORATIONS_PER_HOUR", 0)
    greedy = replay(table, state, WAYS["greedy"], 0)
    assert replay(table, state, WAYS["Thompson sampling"], 0) == pytest.approx(greedy)


def test_the_summary_by_hand() -> None:
    still = np.full(300, 0.4)
    learns = np.where(np.arange(300) < 100, 0.6, 0.2)
    rows = summary({"weighted": [still, still], "LinUCB": [learns, learns]})
    assert rows["LinUCB"]["phases"] == {
        "0 to 100": (pytest.approx(0.6), pytest.approx(0.0)),
        "100 to 300": (pytest.approx(0.2), pytest.approx(0.0)),
    }
    # 20 behind after 100, 0.2 less with each.
    assert rows["LinUCB"]["ahead_from"] == pytest.approx(200, abs=1)
    console = Console(width=120, record=True, quiet=True)
    console.print(table_of("made up", rows))


def test_the_figure() -> None:
    runs = {"weighted": [np.full(50, 0.4)] * 2, "LinUCB": [np.full(50, 0.2)] * 2}
    figure = draw_regret({"one": runs, "two": runs}, "weighted", 2)
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[:2] == ["one", "two"]
    (line, _) = figure.axes[0].lines
    assert np.asarray(line.get_ydata())[-1] == pytest.approx(10.0)
