"""What is counted against whom, on observations that are made up."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Sequence
from io import StringIO

import psutil
import pytest
from rich.console import Console

from hostile.cases import LENIENT, Case, Right, Target, Variant, table
from hostile.neighbours import WAKING, Asked, Looked
from hostile.report import beside, document, families, figures, markdown, problems, tables
from hostile.running import Options, Outcome, Row, Wrong, _Runner, degraded, percentile
from hostile.watching import Observations, Watched, lost
from hostile.wire import Answer

TARGET = Target(("127.0.0.1", 1), ("a",))


def asked(seconds: float, fault: str | None = None, status: int | None = 200) -> Asked:
    return Asked("chat auto", 10.0, 10.0 + seconds, status, fault)


def looked(at: float, fault: str | None = None, *away: str, status: int | None = 200) -> Looked:
    return Looked("/health", at, at, status, fault, dict.fromkeys(away, "breaks requests"))


def runner() -> _Runner:
    observed = Observations(TARGET, 1.0, ["/health"])
    return _Runner(TARGET, Options(), observed, "/health", frozenset(), lambda _: None)


def case(name: str = "f/x", right: Right | None = None, *, fills_queues: bool = False) -> Case:
    async def act(target: Target, variant: Variant) -> Sequence[Answer]:
        return []

    return Case(name, act, right or Right(), fills_queues=fills_queues)


def test_percentiles_are_of_answered_requests() -> None:
    given = [asked(s / 100) for s in range(1, 101)] + [asked(60, "no answer")]
    assert percentile(given, 0.5) == asked(0.5).seconds
    assert percentile(given, 0.99) == asked(0.99).seconds
    assert percentile([asked(1, "no")], 0.5) is None


def test_seconds_degraded_and_models_that_became_unavailable() -> None:
    looks = [
        looked(0),
        looked(1, "degraded", "a"),
        looked(2, "degraded", "a", "b"),
        looked(8, "TimeoutError", status=None),
        looked(9, "degraded", "a"),
        looked(10),
        looked(11, "degraded", "a"),
    ]
    seconds, became = degraded(looks, ("a", "b"))
    assert degraded(looks, ("b",))[1] == {"b": 1}
    assert seconds == 10
    # A look without an answer says nothing of models; `a` came back once and left again.
    assert became == {"a": 2, "b": 1}


def test_a_process_is_lost_when_it_has_ended() -> None:
    child = psutil.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    created = child.create_time()
    lives = Watched("replica a", child.pid, created)
    # The pid came again.
    other = Watched("replica b", child.pid, created - 100)
    assert lost([lives, other]) == [other]
    child.communicate(b"\n")
    assert lost([lives, other]) == [lives, other]


def test_rejections_are_no_failures_only_where_the_case_fills_queues() -> None:
    turned_away = asked(0.1, "status 429: queue_full", 429)
    row = Row(case())
    runner().count_asked(row, [turned_away, asked(1)])
    assert (row.ordinary, len(row.failed), row.rejected) == (2, 1, 0)
    row = Row(case(fills_queues=True))
    runner().count_asked(row, [turned_away, asked(1, "status 503", 503)])
    assert (row.ordinary, len(row.failed), row.rejected) == (2, 1, 1)


def test_wrong_answers_are_kept_with_what_is_wrong() -> None:
    row = Row(case())
    late = Answer("POST x", status=500, body=b"Internal Server Error", elapsed_s=31.0)
    left = Answer("POST x", left=True)
    suspicious = runner()._judge(row, Variant("/v1/completions", "a", False), [late, left])
    assert suspicious
    (wrong,) = row.wrong
    assert (wrong.status, wrong.head, wrong.seconds) == (500, "Internal Server Error", 31.0)
    assert row.slowest_s == 31.0
    assert row.requests == 2


def test_a_dry_run_need_not_know_what_the_model_would_say() -> None:
    decision = Answer("POST /v1/route auto", status=200, body=b'{"candidates": []}')
    for path, number in (("/v1/route", 0), ("/v1/completions", 1)):
        row = Row(case())
        runner()._judge(row, Variant(path, "auto", False), [decision])
        assert len(row.wrong) == number


def outcome() -> Outcome:
    bad = Row(case("grammars/root"), requests=3, slowest_s=31.2, ordinary=9)
    bad.wrong = [Wrong("grammars/root", "POST x", 500, ("status 500",), "Internal", 31.2)]
    bad.failed = [asked(33, "status 503: model_failed", 503)]
    bad.lost = [Watched("replica a", 7, 1.0)]
    bad.breakers.update(["a"])
    fine = Row(case("numbers/n"), requests=2, ordinary=4)
    looks = [looked(1), looked(2, "degraded", "a")]
    return Outcome([fine, bad], [], [asked(0.1)], [asked(0.3)], looks)


def test_a_run_fails_by_what_it_saw() -> None:
    assert outcome().failed
    good = Outcome([Row(case(), requests=1, ordinary=3)])
    assert not good.failed
    assert Outcome().failed
    good.before = [asked(1, "status 500", 500)]
    assert good.failed


def test_the_tables_name_what_is_bad() -> None:
    made = outcome()
    text = StringIO()
    screen = Console(file=text, width=250)
    for one in tables(made):
        screen.print(one)
    assert "grammars/root" in text.getvalue()
    assert [line[0] for line in families(made.rows)] == ["numbers", "grammars", "all"]
    said = {name: value for name, value, _ in figures(made)}
    assert said["ordinary requests that failed"] == "1 of 13"
    assert said["replicas and engine cores lost"] == "1"
    assert said["p99 with the corpus over alone"] == "3.00"
    lines = problems(made)
    assert lines[0].startswith("WRONG grammars/root: POST x: status 500 after 31.2 s: status 500:")
    assert "1 x status 503: model_failed" in lines[1]
    assert "replica a (pid 7)" in lines[2]
    assert problems(made, most=1)[-1] == "and 2 more; --json has them"
    assert "| grammars | 1 | 3 | 1 | 31.2 s |" in markdown(made)
    assert document(made)["cases"][1]["wrong_answers"] == 1


def test_another_run_stands_beside() -> None:
    theirs = document(outcome(), "another")
    theirs["figures"]["breakers opened"] = "99"
    theirs["figures"]["p99 of /v1/models"] = "5 ms"
    lines = {line[0]: line[1:] for line in beside(outcome(), "ours", theirs)}
    assert lines["figure"] == ("ours", "another", "goal")
    assert lines["breakers opened"] == ("1", "99", "0")
    assert lines["p99 of /v1/models"] == ("", "5 ms", "")


def test_an_act_gets_its_form() -> None:
    (row,) = table("f", {"x": {}}, Right(LENIENT))
    answers = asyncio.run(row.act(TARGET, Variant("/v1/completions", "a", False)))
    assert [answer.status for answer in answers] == [None]


def test_how_late_the_machine_is_stands_beside_the_health_routes() -> None:
    made = outcome()
    made.looked = [looked(1), Looked(WAKING, 1.0, 1.25, None, None)]
    found = {name: (seen, goal) for name, seen, goal in figures(made)}
    assert found[f"p99 of {WAKING}"] == ("250, longest 250 ms", "")
    assert found["p99 of /health"][1] == "100 ms"


def test_a_slow_case_leaves_its_other_forms_out(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    slow = runner()
    slow.tell = said.append
    monkeypatch.setattr(slow, "_recover", lambda row, began: None)
    monkeypatch.setattr("hostile.running.CASE_S", -1.0)
    assert slow.run(case(), 0).requests == 0
    assert said == ["f/x: slow, 2 of its forms are left out"]
