"""Against a real HTTP server that answers in OpenAI's form with canned texts."""

import argparse
import csv
import json
import math
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from profiling.accuracy import measure as accuracy
from profiling.accuracy.exam import generate_tasks
from profiling.accuracy.measure import read_accuracies
from profiling.errors import InputError

SEED, PER_KIND = 5, 6
TASKS = {task.prompt: task for task in generate_tasks(SEED, PER_KIND)}


def perfect(prompt: str) -> str:
    return f"The answer is: {TASKS[prompt].answers[0]}"


def only_facts(prompt: str) -> str:
    return perfect(prompt) if TASKS[prompt].kind == "facts" else "I do not know."


@dataclass
class Server:
    """What the models say, and what they were asked."""

    models: dict[str, Callable[[str], str | None]]
    url: str = ""
    bodies: list[dict[str, object]] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)

    async def list_models(self, request: Request) -> JSONResponse:
        data = [{"id": model, "object": "model"} for model in (*self.models, "auto")]
        return JSONResponse({"object": "list", "data": data})

    async def chat(self, request: Request) -> JSONResponse:
        body = await request.json()
        self.bodies.append(body)
        self.keys.add(request.headers["authorization"])
        text = self.models[body["model"]](body["messages"][0]["content"])
        if text is None:
            error = {"message": "the engine is gone", "type": "invalid_request_error"}
            return JSONResponse({"error": error}, status_code=422)
        choice = {"index": 0, "message": {"role": "assistant", "content": text}}
        return JSONResponse(
            {
                "id": "c",
                "object": "chat.completion",
                "model": body["model"],
                "choices": [choice],
                "usage": {"prompt_tokens": 5, "completion_tokens": 4, "total_tokens": 9},
            }
        )


@contextmanager
def serving(models: dict[str, Callable[[str], str | None]]) -> Iterator[Server]:
    state = Server(models)
    app = Starlette(
        routes=[
            Route("/v1/models", state.list_models),
            Route("/v1/chat/completions", state.chat, methods=["POST"]),
        ]
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        state.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            deadline = time.monotonic() + 10
            while not server.started and time.monotonic() < deadline:
                time.sleep(0.01)
            yield state
        finally:
            server.should_exit = True
            thread.join()


def run(url: str, data_dir: Path, *options: str) -> int:
    parser = argparse.ArgumentParser()
    accuracy.add_arguments(parser)
    fixed = ["--url", url, "--seed", str(SEED), "--per-kind", str(PER_KIND)]
    return accuracy.run(parser.parse_args([*fixed, "--data-dir", str(data_dir), *options]))


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_measures_every_model_and_writes_both_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    with serving({"good": perfect, "bad": only_facts}) as server:
        assert run(server.url, tmp_path, "--json") == 0
    share = PER_KIND / len(TASKS)
    good, bad = rows(tmp_path / "model_accuracy_scores.csv")
    assert (good["model"], bad["model"]) == ("good", "bad")
    assert float(good["accuracy"]) == 1
    assert float(bad["accuracy"]) == pytest.approx(share, abs=1e-6)
    error = math.sqrt(share * (1 - share) / len(TASKS))
    assert float(bad["standard_error"]) == pytest.approx(error, abs=1e-6)
    assert (bad["accuracy_facts"], bad["accuracy_sorting"]) == ("1.0", "0.0")
    assert (bad["n"], bad["seed"], bad["mean_output_tokens"]) == (str(len(TASKS)), "5", "4.0")

    outcomes = rows(tmp_path / "accuracy_outcomes.csv")
    assert [row["prompt"] for row in outcomes] == list(TASKS)
    assert all(row["kind"] == TASKS[row["prompt"]].kind for row in outcomes)
    assert all(row["good"] == "1" for row in outcomes)
    assert all(row["bad"] == str(int(row["kind"] == "facts")) for row in outcomes)

    printed = json.loads(capsys.readouterr().out)
    assert [row["model"] for row in printed["models"]] == ["good", "bad"]
    assert server.keys == {"Bearer secret"}
    assert {body["temperature"] for body in server.bodies} == {0}
    assert {body["model"] for body in server.bodies} == {"good", "bad"}


def test_asks_only_the_models_that_are_wanted_and_prints_a_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving({"good": perfect, "bad": only_facts}) as server:
        assert run(server.url, tmp_path, "--models", "good,good") == 0
    assert {body["model"] for body in server.bodies} == {"good"}
    assert len(server.bodies) == len(TASKS)
    out = capsys.readouterr().out
    assert "100.0 % ± 0.0" in out
    assert "model_accuracy_scores.csv" in out


@pytest.mark.parametrize("name", ["nobody", "auto"])
def test_a_model_that_is_not_there_is_bad_input(tmp_path: Path, name: str) -> None:
    with serving({"good": perfect}) as server, pytest.raises(InputError, match=f"'{name}'.*good"):
        run(server.url, tmp_path, "--models", name)


def test_failed_requests_fail_the_run_and_leave_the_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model_accuracy_scores.csv").write_text("model,accuracy\nold,0.5\n")
    failing = next(iter(TASKS))

    def sometimes(prompt: str) -> str | None:
        return None if prompt == failing else perfect(prompt)

    with serving({"good": perfect, "broken": sometimes}) as server:
        assert run(server.url, tmp_path) == 1
    assert f"broken: 1 of {len(TASKS)} requests failed" in capsys.readouterr().err
    assert read_accuracies(tmp_path / "model_accuracy_scores.csv").keys() == {"old"}
    assert not (tmp_path / "accuracy_outcomes.csv").exists()


def test_stops_asking_a_model_that_only_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving({"broken": lambda prompt: None}) as server:
        assert run(server.url, tmp_path, "--concurrency", "1") == 1
    assert len(server.bodies) == accuracy.MAX_FAILURES
    assert "the engine is gone" in capsys.readouterr().err


def test_no_server(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    assert run(url, tmp_path) == 1
    assert url in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value"), [("--concurrency", "0"), ("--per-kind", "0"), ("--per-kind", "101")]
)
def test_options_out_of_range(tmp_path: Path, option: str, value: str) -> None:
    with pytest.raises(InputError, match=f"{option}.*{value}"):
        run("http://127.0.0.1:9", tmp_path, option, value)


def test_read_accuracies_says_where_they_come_from(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    path.write_text("model,accuracy,n,seed\nphi,0.685,200,3\nfalcon,0.705,,\n")
    assert read_accuracies(path) == {
        "phi": (0.685, "scores.csv, n 200, seed 3"),
        "falcon": (0.705, "scores.csv"),
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,accuracy\nphi,0.5\n", "column 'model' is missing"),
        ("model,accuracy\nphi,1.5\n", "'phi': must be in 0..1, got '1.5'"),
        ("model,accuracy\nphi,nan\n", "'phi'.*'nan'"),
        ("model,accuracy\nphi,\n", "'phi'.*''"),
        ("model,accuracy\nphi\n", "'phi'.*None"),
        ("model,accuracy\nphi,0.5\nphi,0.6\n", "'phi' stands there twice"),
    ],
)
def test_read_accuracies_refuses(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "scores.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_accuracies(path)


def test_read_accuracies_of_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_accuracies(tmp_path / "none.csv")


def test_answers_are_kept_for_fits_that_compare_them(tmp_path: Path) -> None:
    with serving({"good": perfect, "bad": only_facts}) as server:
        assert run(server.url, tmp_path, "--logprobs") == 0
    found = rows(tmp_path / "cascade_outcomes.csv")
    assert {row["answer"] for row in found if row["model"] == "good"} == {
        perfect(prompt) for prompt in TASKS
    }
