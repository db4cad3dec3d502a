import json
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.image import imread
from replay import Answer
from rich.console import Console
from trace_report import Outcome, as_json, as_table, draw_outcomes

ABOUT = {"trace": None, "requests": 101, "rate_per_s": 10.0, "deadline_s": 0.6, "date": "-"}


def outcome(name: str = "auto, time", joules: float | None = 3.0) -> Outcome:
    """Runtimes of 0.00, 0.01 ... 1.00 s, every tenth answered by `b`."""
    answers = [
        Answer(
            due_s=i / 10,
            first_s=i / 10 + i / 200,
            complete_s=i / 10 + i / 100,
            output_tokens=6,
            model="b" if i % 10 == 0 else "a",
            energy_joules=joules if i % 2 else None,
        )
        for i in range(101)
    ]
    return Outcome(name, answers, span_s=10.0, deadline_s=0.605)


def test_percentiles() -> None:
    assert outcome().runtime_s == pytest.approx({50: 0.5, 95: 0.95, 99: 0.99})
    assert outcome().ttft_s == pytest.approx({50: 0.25, 95: 0.475, 99: 0.495})
    # Five further tokens took as long as the first one.
    assert outcome().tpot_s == pytest.approx({50: 0.05, 95: 0.095, 99: 0.099})


def test_goodput_counts_what_met_the_deadline() -> None:
    assert outcome().goodput_per_s == pytest.approx(61 / 10)


def test_joules_are_those_that_were_measured() -> None:
    assert outcome().joules_per_request == 3.0
    assert outcome(joules=None).joules_per_request is None


def test_the_models_that_answered_most_often_come_first() -> None:
    assert outcome().models == pytest.approx({"a": 90 / 101, "b": 11 / 101})


def test_the_table_says_it_all_and_fits() -> None:
    console = Console(width=120)
    with console.capture() as capture:
        console.print(as_table([outcome(), outcome("even", None)], ABOUT))
    text = capture.get()
    for said in ("0.50  0.95  0.99", "50  95  99", "3.0", "6.10", " 89% a", " 11% b"):
        assert said in text
    assert "…" not in text


@pytest.mark.parametrize(("name", "said"), [("auto, time", True), ("a", False)])
def test_one_model_is_named_where_there_was_a_choice(name: str, said: bool) -> None:
    chosen = outcome(name)
    chosen = replace(chosen, answers=[replace(answer, model="a") for answer in chosen.answers])
    console = Console(width=120)
    with console.capture() as capture:
        console.print(as_table([chosen], ABOUT))
    assert ("100% a" in capture.get()) is said


def test_json_has_every_outcome() -> None:
    data = json.loads(json.dumps(as_json([outcome("x"), outcome("y")], ABOUT)))
    assert [row["name"] for row in data["outcomes"]] == ["x", "y"]
    assert data["outcomes"][0]["runtime_s"]["95"] == pytest.approx(0.95)


def test_the_figure_is_drawn(tmp_path: Path) -> None:
    path = tmp_path / "new" / "trace.png"
    draw_outcomes([outcome("auto, time"), outcome("a"), outcome("round robin", None)], ABOUT, path)
    pixels = imread(path)
    assert pixels.shape[1] == 1600
    assert len({tuple(p) for p in pixels[::4, ::4].reshape(-1, pixels.shape[2])}) > 20
