"""The command against a store actor in a Ray of its own would take seconds; live tests do that."""

from __future__ import annotations

import argparse
import json
from typing import Any

import pytest

from cluster.__main__ import main
from cluster.cli import learning as learning_command

SUMMARY = {
    "frozen": True,
    "epoch": 2,
    "explored_this_hour": 7,
    "models": {"small": {"answers": 9, "quality_off": -0.25, "energy_off": 0.0, "time_off": 0.5}},
}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    actions: list[str] = []

    def answer(action: str) -> dict[str, Any]:
        actions.append(action)
        return SUMMARY

    monkeypatch.setattr(learning_command, "_ask_store", answer)
    return actions


def test_it_prints_what_there_is(asked: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["learning", "freeze"]) == 0
    printed = capsys.readouterr().out
    assert asked == ["freeze"]
    for text in ("frozen, reset 2 times, 7 requests", "small", "9", "-0.250", "+0.500"):
        assert text in printed


def test_json(asked: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["learning", "show", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == SUMMARY


def test_an_unknown_action_is_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["learning", "forget"])
    assert raised.value.code == 2
    assert "forget" in capsys.readouterr().err


def test_nothing_learnt_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(learning_command, "_ask_store", lambda _: SUMMARY | {"models": {}})
    assert learning_command.run(argparse.Namespace(action="show", json=False)) == 0
    assert "no feedback" in capsys.readouterr().out
