from __future__ import annotations

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from outcome_examples import made_up

from profiling.__main__ import main
from profiling.inputs import read_quality_model
from profiling.quality.command import publish


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quality")
    made = made_up(120)
    frame = pd.DataFrame(made.scores, columns=list(made.models))
    frame.insert(0, "prompt", made.prompts)
    frame.to_csv(folder / "outcomes.csv", index=False)
    path = folder / "quality.model"
    options = ["--input", str(folder / "outcomes.csv"), "--output", str(path)]
    assert main(["quality", "fit", *options]) == 0
    return path


def test_fit_reports_and_writes(fitted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = read_quality_model(fitted)
    assert main(["quality", "report", "--model", str(fitted), "--prompt", "algebra", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["version"] == model.version
    assert report["prompts"] == 120
    assert [row["model"] for row in report["models"]] == ["small", "large"]
    assert set(report["estimates"]) == {"small", "large"}
    assert main(["quality", "report", "--model", str(fitted), "--prompt", "algebra"]) == 0
    assert "familiarity" in capsys.readouterr().out


def test_fit_of_one_model_as_json(
    fitted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--input", str(fitted.with_name("outcomes.csv")), "--models", "small", "--json"]
    assert main(["quality", "fit", *options, "--output", str(tmp_path / "one.model")]) == 0
    assert [row["model"] for row in json.loads(capsys.readouterr().out)["models"]] == ["small"]


def test_publishing_tells_every_router(fitted: Path) -> None:
    model = read_quality_model(fitted)
    taken: list[bytes] = []

    async def store(data: bytes) -> str:
        taken.append(data)
        return model.version

    class Router:
        def broadcast(self, method: str) -> Any:
            assert method == "refresh"

            async def results() -> list[str]:
                return ["p", "p"]

            return SimpleNamespace(results_async=results)

    archive = SimpleNamespace(publish_quality=SimpleNamespace(remote=store))
    actor = SimpleNamespace(archive=archive)
    assert asyncio.run(publish(model, actor, Router())) == (model.version, 2)
    assert taken == [model.to_bytes()]


def test_files_that_cannot_be_used(
    fitted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = tmp_path / "cut.model"
    cut.write_bytes(fitted.read_bytes()[:-50])
    for path, fault in ((cut, "cut off"), (tmp_path / "none", "No such file")):
        assert main(["quality", "report", "--model", str(path)]) == 2
        assert fault in capsys.readouterr().err
    options = ["--input", str(fitted.with_name("outcomes.csv")), "--output", "/proc/none/x"]
    assert main(["quality", "fit", *options]) == 2
    assert "--output" in capsys.readouterr().err
