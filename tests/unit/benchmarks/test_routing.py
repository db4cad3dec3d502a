from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import routing
from routing import Goal, find_goals, read_gsm8k, read_wide

from profiling.quality.evaluation import ESTIMATORS, Split, replay, splits
from profiling.quality.outcomes import Outcomes

needs_data = pytest.mark.skipif(
    not (routing.DEFAULT_DATA / routing.MMLU).exists(), reason="the shared data is not there"
)


@needs_data
def test_the_tables_are_what_they_are_known_to_be() -> None:
    mmlu = read_wide(routing.DEFAULT_DATA / routing.MMLU, kept=["subject"])
    assert mmlu.scores.mean(axis=0) == pytest.approx([0.677, 0.800], abs=0.003)
    mixed = read_wide(routing.DEFAULT_DATA / routing.MIXED)
    assert mixed.scores.max(axis=1).mean() == pytest.approx(0.80, abs=0.005)
    gsm8k = read_gsm8k(routing.DEFAULT_DATA / routing.GSM8K)
    accuracy = dict(zip(gsm8k.models, gsm8k.scores.mean(axis=0), strict=True))
    assert accuracy["llama-3.1-70b-instruct"] == pytest.approx(0.92, abs=0.005)
    assert gsm8k.models[int(gsm8k.costs.mean(axis=0).argmax())] == "llama-3.1-70b-instruct"


@needs_data
def test_a_small_replay_is_repeatable_and_better_than_its_references() -> None:
    table = read_wide(routing.DEFAULT_DATA / routing.MMLU, kept=["subject"])
    seed, train, test = next(splits(table, 500, [0]))
    test = test.subset(np.arange(1500))
    apgr = {}
    for policy in ("prompt length", "best single", "quality"):
        gap = replay(ESTIMATORS[policy], train, test, seed).gap
        assert gap is not None
        apgr[policy] = gap.apgr
    assert apgr["best single"] == pytest.approx(0.5)
    assert apgr["quality"] > apgr["prompt length"] > 0.52


def made_up_runs() -> dict[str, dict[str, list[Split]]]:
    rng = np.random.default_rng(0)
    scores = (rng.random((200, 2)) < (0.6, 0.9)).astype(float)
    costs = np.tile([1.0, 4.0], (200, 1))
    table = Outcomes(tuple(map(str, range(200))), ("weak", "strong"), scores, costs)
    names = ("MMLU, 1,500 labels", "MMLU, 5,000 labels", "mixed tasks", "GSM8K")
    policies = {"quality": "oracle", "best single": "best single"}
    runs: dict[str, dict[str, list[Split]]] = {}
    for name in names:
        runs[name] = {
            policy: [
                replay(ESTIMATORS[kind], learn, choose, seed)
                for seed, learn, choose in splits(table, 100, [0, 1])
            ]
            for policy, kind in policies.items()
        }
    return runs


def test_goals_are_met_by_who_knows_everything_and_not_by_one_model() -> None:
    runs = made_up_runs()
    goals = find_goals(runs)
    # Without a gap in cost of 4 to 1 or more, the last two cannot be reached.
    assert all(goal.met for goal in goals[:4])
    swapped = {
        name: {"quality": done["best single"], "best single": done["quality"]}
        for name, done in runs.items()
    }
    failed = {goal.figure for goal in find_goals(swapped) if not goal.met}
    assert {"APGR", "cost of the best single model's accuracy"} <= failed


@pytest.mark.parametrize(
    ("value", "least", "met"), [(0.7, True, True), (0.6, True, False), (0.6, False, True)]
)
def test_a_goal_is_met_from_its_own_side(value: float, least: bool, met: bool) -> None:
    assert Goal("d", "f", "r", 0.65, least, {"quality": (value, 0.0)}).met is met
    assert not Goal("d", "f", "r", 0.65, least, {"quality": None}).met


def test_missing_data_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["routing.py", "--data", str(tmp_path)])
    assert routing.main() == 1
    assert "nothing was measured" in capsys.readouterr().out
