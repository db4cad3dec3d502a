"""Every command that a document shows is one that the program takes."""

from __future__ import annotations

import argparse
import importlib
import json
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, NoReturn

import pytest
from documents import ROOT, Command, commands

from deployments.links.frames import Endpoint
from deployments.router.wire.openai import parse_request

COMMANDS = list(commands())
OURS = ("cluster", "deployments", "profiling", "scheduler")
# Take no options.
WITHOUT_PARSER = {"deployments.check"}
ENDPOINTS: dict[str, Endpoint | None] = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "completions",
    "/v1/route": None,
}


class Understood(Exception):  # noqa: N818
    """A parser took the arguments; nothing is to be done with them."""


def _modules() -> list[Command]:
    found = []
    for command in COMMANDS:
        module = command.module
        if module and module[0].split(".")[0] in OURS and module[0] not in WITHOUT_PARSER:
            found.append(command)
    return found


def _main(module: str) -> Callable[[list[str]], int]:
    """What `python -m MODULE` calls."""
    spec = find_spec(module)
    assert spec is not None, module
    package = spec.submodule_search_locations is not None
    found: Callable[[list[str]], int] = importlib.import_module(
        f"{module}.__main__" if package else module
    ).main
    return found


def test_there_are_commands() -> None:
    assert len(_modules()) > 20


@pytest.mark.parametrize("command", _modules(), ids=str)
def test_a_documented_command_is_taken(
    command: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    parse = argparse.ArgumentParser.parse_args

    def only_parse(parser: argparse.ArgumentParser, *args: Any, **kwargs: Any) -> NoReturn:
        parse(parser, *args, **kwargs)
        raise Understood

    assert command.module is not None
    module, arguments = command.module
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", only_parse)
    try:
        with pytest.raises(Understood):
            _main(module)(list(arguments))
    except SystemExit:
        pytest.fail(f"{command}\n{capsys.readouterr().err}")


def _runs_alone(command: Command) -> bool:
    """Whether it needs no file, no cluster and no network."""
    module = command.module
    return (
        module is not None
        and module[0] == "scheduler"
        and not {"--profiles", "--quality"} & set(module[1])
    )


@pytest.mark.parametrize("command", [c for c in COMMANDS if _runs_alone(c)], ids=str)
def test_a_documented_decision_is_made(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.module is not None
    assert _main("scheduler")(list(command.module[1])) == 0
    printed = capsys.readouterr()
    assert "mistral-7b-instruct-v0.2" in printed.out


def _bodies() -> list[tuple[Command, str, str]]:
    found = []
    for command in COMMANDS:
        if command.words[0] != "curl" or "-d" not in command.words:
            continue
        path = next(word for word in command.words if word.startswith("http")).split(":8000")[-1]
        if path in ENDPOINTS:
            found.append((command, path, command.words[command.words.index("-d") + 1]))
    return found


def test_there_are_bodies() -> None:
    assert len(_bodies()) > 4


@pytest.mark.parametrize(("command", "path", "body"), _bodies(), ids=str)
def test_a_documented_body_is_taken(command: Command, path: str, body: str) -> None:
    json.loads(body)
    parse_request(body.encode(), ENDPOINTS[path])


def test_documented_yaml_files_are_there() -> None:
    for command in COMMANDS:
        if command.words[:2] == ("serve", "run"):
            assert (ROOT / command.words[2]).is_file(), command
