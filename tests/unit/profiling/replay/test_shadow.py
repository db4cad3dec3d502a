from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from profiling.__main__ import main
from profiling.replay.shadow import canary_reports, shadow_reports


def record(model: str, shadow: str | None = None, **more: Any) -> dict[str, Any]:
    """`big` is predicted to take 100 J, 4 s and to be right with 0.9; `small` 20, 1, 0.6."""
    costs = {"big": (100.0, 4.0, 0.9), "small": (20.0, 1.0, 0.6)}
    names = ("energy_joules", "runtime_s", "accuracy")
    return {
        "decision_id": "d",
        "model": model,
        "policy": "weighted",
        "candidates": [{"model": m, **dict(zip(names, c, strict=True))} for m, c in costs.items()],
        "shadow": {"policy": "bandit", "model": shadow, "reason": ""} if shadow else None,
        "canary": False,
        "error": None,
        "observation": {"energy_joules": 10.0, "runtime_s": 2.0},
        **more,
    }


REFUSED = {"policy": "bandit", "model": None, "reason": "no"}
RECORDS = [
    record("big", "big", feedback={"score": 1.0}),
    record("big", "big", observation={"energy_joules": None, "runtime_s": 4.0}),
    record("big", "small", feedback={"score": 0.5}),
    record("big", "small", error="broke", observation=None),
    record("small", "big"),
    record("big", shadow=None),
    record("big", None) | {"shadow": REFUSED},
]


def write(folder: Path, *records: Any) -> Path:
    path = folder / "decisions.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in records))
    return path


def test_a_shadow_by_hand() -> None:
    (report,) = shadow_reports(RECORDS)
    assert (report.policy, report.shadow) == ("weighted", "bandit")
    assert (report.decisions, report.refused, report.agreement) == (6, 1, 0.4)
    # Two times 80 J less and once 80 J more, over five and over three.
    assert report.difference["energy_joules"] == pytest.approx(-80 / 5)
    assert report.difference_where_apart["energy_joules"] == pytest.approx(-80 / 3)
    assert report.difference_where_apart["runtime_s"] == pytest.approx(-1.0)
    assert report.difference_where_apart["accuracy"] == pytest.approx(-0.1)
    same, apart = report.same, report.apart
    assert (same.answers, same.energy_joules, same.runtime_s) == (2, 10.0, 3.0)
    assert (same.rated, same.score) == (1, 1.0)
    assert (apart.answers, apart.rated, apart.score) == (2, 1, 0.5)
    assert report.pairs == (("big", "small", 2), ("small", "big", 1))


def test_a_choice_that_was_no_candidate_is_not_compared() -> None:
    (report,) = shadow_reports([record("big", "gone")])
    assert report.difference["energy_joules"] is None
    assert report.agreement == 0.0


def test_a_canary_by_hand() -> None:
    canary = [record("small", policy="bandit", canary=True, feedback={"score": 1.0})] * 2
    failed = record("small", policy="bandit", canary=True, error="broke")
    pinned = record("small", policy="pinned")
    base, tried = sorted(
        canary_reports([*RECORDS, *canary, failed, pinned]), key=lambda r: r.canary
    )
    assert (base.policy, base.decisions, base.failed) == ("weighted", 7, 1)
    assert (tried.policy, tried.decisions, tried.failed) == ("bandit", 3, 1)
    assert (tried.measured.answers, tried.measured.score) == (2, 1.0)
    assert canary_reports(RECORDS) == []


def test_tables_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    canary = record("small", policy="static", canary=True)
    path = write(tmp_path, *RECORDS, canary)
    assert main(["shadow", "--decisions", str(path)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    for text in ("bandit in the shadow of weighted: 6 decisions", "40.0%", "1 refused", "-26.7"):
        assert text in printed
    assert "static (canary)" in printed
    assert main(["shadow", "--decisions", str(path), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["shadows"][0]["agreement"] == 0.4
    assert {report["policy"] for report in document["canaries"]} == {"weighted", "static"}


@pytest.mark.parametrize(
    ("records", "said"),
    [([record("big")], "no decision has a shadow"), ([{"shadow": 7}], "not a decision")],
)
def test_what_cannot_be_compared(
    records: list[Any], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["shadow", "--decisions", str(write(tmp_path, *records))]) == 2
    assert said in capsys.readouterr().err


def test_unreadable_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["shadow", "--decisions", str(tmp_path / "none")]) == 2
    broken = tmp_path / "broken"
    broken.write_text("{}\n{")
    assert main(["shadow", "--decisions", str(broken)]) == 2
    assert "line 2 is no JSON" in capsys.readouterr().err
