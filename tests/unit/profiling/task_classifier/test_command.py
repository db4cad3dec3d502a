from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from profiling.__main__ import main
from profiling.task_classifier.fit import fit_tasks
from profiling.task_classifier.prompts import generate_prompts
from profiling.task_classifier.templates import TEMPLATES
from scheduler.prompts.features import extract
from scheduler.prompts.task_model import TaskModel
from scheduler.prompts.tasks import TASKS, classify


def told(capsys: pytest.CaptureFixture[str], *options: str) -> Any:
    assert main(["tasks", *options, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_prompts_depend_on_the_seed_alone() -> None:
    prompts = generate_prompts(3, 2)
    assert prompts == generate_prompts(3, 2)
    assert prompts != generate_prompts(4, 2)
    assert len(prompts) == 2 * sum(map(len, TEMPLATES.values()))
    assert {p.task for p in prompts} == set(TASKS)
    # More of each template leaves the first as they are.
    assert set(prompts) < set(generate_prompts(3, 5))


def test_every_slot_is_filled() -> None:
    slots = ("<name>", "<n>", "<things>", "<passage>", "<sentence>", "<code>", "<topic>", "<x>")
    for prompt in generate_prompts(0, 3):
        assert not any(slot in prompt.prompt for slot in slots), prompt


def test_a_fit_tells_tasks_apart_on_templates_that_it_did_not_see() -> None:
    model = fit_tasks(generate_prompts(1, 3))
    figures = model.report["held_out"]
    assert figures["rules_then_model"]["accuracy"] > 0.7
    assert figures["rules_then_model"]["macro_f1"] > figures["rules"]["macro_f1"] + 0.2
    confusion = figures["model"]["confusion"]
    assert sum(map(sum, confusion)) == model.report["prompts"]
    # Stored in half precision.
    again = TaskModel.from_bytes(model.to_bytes())
    prompts = [p.prompt for p in generate_prompts(2, 1)]
    same = [model.classify(extract(p)) == again.classify(extract(p)) for p in prompts]
    assert sum(same) >= 0.99 * len(same)


def test_fit_and_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "t.model"
    fitted = told(capsys, "fit", "--output", str(path), "--per-template", "2")
    model = TaskModel.from_bytes(path.read_bytes())
    assert fitted["version"] == model.version
    question = "Tom has 3 cups and buys 4 more. How many cups does he have?"
    table = tmp_path / "p.csv.gz"
    with gzip.open(table, "wt") as file:
        file.write(f'prompt,subject\n"{question}",a\n"{question}",a\nHello!,b\n')
    report = told(
        capsys,
        *("report", "--model", str(path), "--prompt", "Hello!", "--input", str(table)),
        *("--task", "mathematics", "--where", "subject=a"),
    )
    assert report["task"] == classify("Hello!", model)
    assert report["input"]["prompts"] == 1
    assert report["input"]["rules"] == {"mathematics": 1}
    assert report["input"]["rules_accuracy"] == 1.0
    assert main(["tasks", "report"]) == 0
    assert "templates that the fit did not see" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("report", "--model", "/nowhere"), "cannot be read"),
        (("report", "--model", __file__), "not a usable task model"),
        (("report", "--input", "/nowhere.csv"), "cannot be read"),
        (("report", "--input", "{csv}", "--where", "x=1"), "has no column 'x'"),
        (("report", "--input", "{csv}", "--where", "prompt=1"), "no prompts where"),
        (("fit", "--per-template", "0"), "must be above 0"),
        (("fit", "--output", "{csv}/t.model", "--per-template", "1"), "cannot be written"),
    ],
)
def test_what_cannot_be_used_is_named(
    options: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    csv = tmp_path / "p.csv"
    csv.write_text("prompt\nHello\n")
    assert main(["tasks", *(option.format(csv=csv) for option in options)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
