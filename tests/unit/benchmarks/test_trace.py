import asyncio
import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest
from embedded_models import EmbeddedModels
from openai_double import OpenAiDouble, serving
from servers import Server

MODELS = ("small", "large")


@pytest.fixture
def trace(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The program, by its path: the standard library has a module of this name."""
    path = Path(__file__).parents[3] / "benchmarks" / "trace.py"
    spec = spec_from_file_location("benchmarks_trace", path)
    assert spec
    assert spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "SETTLE_S", 0.0)
    return module


@contextmanager
def served(double: OpenAiDouble) -> Iterator[EmbeddedModels]:
    """The double as if it were an instance, in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    context = serving(double)
    url = asyncio.run_coroutine_threadsafe(context.__aenter__(), loop).result(10)
    try:
        # The double is no process.
        server = Server("double", url, process=None, log=Path())  # type: ignore[arg-type]
        yield EmbeddedModels(server, MODELS, Path(), ray_port=0)
    finally:
        asyncio.run_coroutine_threadsafe(context.__aexit__(None, None, None), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def run(
    trace: ModuleType, double: OpenAiDouble, monkeypatch: pytest.MonkeyPatch, *options: str
) -> int:
    argv = ["trace.py", "--requests", "12", "--rate", "100", "--budget", "0", *options]
    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.setattr(trace, "embedded_models", lambda console: served(double))
    monkeypatch.setattr(trace.signal, "signal", lambda *_: None)
    code: int = trace.main()
    return code


def test_every_way_gets_the_same_arrivals(
    trace: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    double = OpenAiDouble()
    plot = tmp_path / "trace.png"
    assert run(trace, double, monkeypatch, "--json", "--plot", str(plot)) == 0
    data = json.loads(capsys.readouterr().out)
    names = [outcome["name"] for outcome in data["outcomes"]]
    assert names == ["auto, time", "auto, energy", "auto, even", *MODELS, "round robin"]
    # And once more, to warm up. Prompts are new each time; very short ones may be alike by chance.
    assert len(double.prompts) == 12 * (len(names) + 1)
    lengths = [len(prompt) for prompt in double.prompts]
    assert all(lengths.count(n) % (len(names) + 1) == 0 for n in lengths)
    assert len(set(map(tuple, double.prompts))) > len(double.prompts) / 2
    assert all(outcome["joules_per_request"] > 0 for outcome in data["outcomes"])
    assert plot.stat().st_size > 10_000


def test_a_server_that_fails_is_said(
    trace: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(trace, OpenAiDouble(status=503), monkeypatch) == 1
    assert "status 503" in capsys.readouterr().err


def test_a_router_that_runs_is_asked_as_it_is(
    trace: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    double = OpenAiDouble()
    output = tmp_path / "outcomes.json"
    with served(double) as running:
        monkeypatch.setattr(trace, "_models_of", lambda url: running.models)
        options = ("--url", running.server.url, "--output", str(output), "--json")
        assert run(trace, double, monkeypatch, *options) == 0
    printed = json.loads(capsys.readouterr().out)
    assert json.loads(output.read_text()) == printed
    assert {"small", "large", "round robin"} <= {o["name"] for o in printed["outcomes"]}
