"""Runs one case: streams, the fault in their midst, and back to where it was."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from chaos.cases import Case
from chaos.site import Site
from chaos.streams import Streams
from chaos.strict_client import Fate, Question, Stream, Verdict, chunks_of, judge, text_of

CLIENTS, IN_THE_MIDDLE = 32, 28
"""So many ask, and so many have a part of their answer when it happens; the others wait for the
first of it, or have just got the last."""
CLIENTS_AFTERWARDS, PAUSE_AFTERWARDS_S = 4, 5.0
"""So many go on asking until all is as before, with pauses: engines that start want the cores, and
vLLM binds all of them to the same ones."""
OUTPUT_TOKENS = 200
COMMON = {
    "max_tokens": OUTPUT_TOKENS,
    "ignore_eos": True,
    "temperature": 0,
    "stream": True,
    "stream_options": {"include_usage": True},
}
SUBJECTS = ("the sea", "a clock", "two brothers", "the last winter")
STREAMS_RUN_WITHIN_S = 60.0
STREAMS_END_WITHIN_S = 130.0
WELL_WITHIN_S = 240.0
SHOWN_PROBLEMS = 5


@dataclass(slots=True)
class Row:
    """What came of a case.

    Attributes:
        fates: Streams by how they ended.
        lost: Streams that ended in an error, or broke behind the router, although a capable model
            was alive.
        longest_pause_s: Of a client that got a whole answer in the end.
        broken_at: `time.monotonic()` of the fault.
        last_failure_s: From the fault until the end of the last stream that was not whole; `None`
            where all were.
        well_after_s: Until everything was as before, `None` where that was not seen.
        retries: Broken connections after which the client asked again with its key.
        whole_retries: Of these, those that got the whole answer.
        replays: Of these, those that were not generated again.
        afterwards: Streams that were asked once everything was as before; all have to be whole.
        whole_afterwards: Those that were.
        problems: What must not be, in words.
    """

    case: Case
    fates: Counter[Fate] = field(default_factory=Counter)
    lost: int = 0
    longest_pause_s: float = 0.0
    broken_at: float = 0.0
    last_failure_s: float | None = None
    well_after_s: float | None = None
    retries: int = 0
    whole_retries: int = 0
    replays: int = 0
    afterwards: int = 0
    whole_afterwards: int = 0
    problems: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """For the JSON."""
        return {
            "case": self.case.name,
            "title": self.case.title,
            "streams": self.fates.total(),
            **{fate.value: self.fates[fate] for fate in Fate},
            "lost": self.lost,
            "longest_pause_s": round(self.longest_pause_s, 2),
            "last_failure_s": self.last_failure_s and round(self.last_failure_s, 1),
            "retries": self.retries,
            "whole_retries": self.whole_retries,
            "replays": self.replays,
            "well_after_s": self.well_after_s and round(self.well_after_s, 1),
            "afterwards": self.afterwards,
            "whole_afterwards": self.whole_afterwards,
            "problems": self.problems[:SHOWN_PROBLEMS],
        }


def questions(site: Site, routing: dict[str, Any], repeating: Collection[str]) -> list[Question]:
    """Half of them for the model with several replicas, half for the router to decide.

    Each has with it what the models answer while nothing is broken.

    Args:
        site: Where to ask for that.
        routing: Of the requests that the router decides.
        repeating: Models that answer the same each time, batching or not: those in float32.

    Raises:
        AssertionError: An answer is not whole, with nothing broken.
    """
    models = (site.several, site.single)
    plain = [(path, {**body, **COMMON}) for path, body in conversations()]
    by_name = [Question(p, {**body, "model": m}) for p, body in plain for m in models]
    with Streams(site.url, by_name, len(by_name)) as streams:
        pass
    texts: dict[str, dict[str, str]] = {}
    for stream in streams.ended:
        verdict, asked = judge(stream), stream.question
        assert verdict.fate is Fate.WHOLE, f"undisturbed, and yet {verdict}: {stream.last()}"
        of_prompt = texts.setdefault(_key(asked.body), {})
        if asked.body["model"] in repeating:
            of_prompt[asked.body["model"]] = text_of(chunks_of(stream))
    return [
        Question(path, {**body, **who}, texts[_key(body)])
        for path, body in plain
        for who in ({"model": site.several}, {"model": "auto", "routing": routing})
    ]


def conversations() -> Iterator[tuple[str, dict[str, Any]]]:
    """Path and prompt of each."""
    for subject in SUBJECTS:
        prompt = f"Tell me about {subject}."
        yield "/v1/completions", {"prompt": prompt}
        yield "/v1/chat/completions", {"messages": [{"role": "user", "content": prompt}]}


def _key(body: dict[str, Any]) -> str:
    return str(body.get("prompt") or body["messages"])


def run_case(site: Site, case: Case, asked: Sequence[Question]) -> Row:
    """Break something while streams run, wait until all is as before, and ask again."""
    row = Row(case)
    site.victims.clear()
    with Streams(site.url, asked, CLIENTS) as streams:
        try:
            _break(row, site, streams)
        except (AssertionError, LookupError, TimeoutError) as error:
            row.problems.append(f"{type(error).__name__}: {error}")
    count(row, streams)
    if row.well_after_s is not None:
        # In an outage of what is in front a client may find no end of it: this is after it.
        with Streams(site.url, asked, len(asked), keyed=False) as again:
            pass
        count_afterwards(row, again)
    return row


def _break(row: Row, site: Site, streams: Streams) -> None:
    wait_until_under_way(streams)
    caught = streams.asking()
    fault = row.case.fault(site)
    row.broken_at = time.monotonic()
    next(fault)
    since = wait_for_end(caught)
    streams.reduce(CLIENTS_AFTERWARDS, PAUSE_AFTERWARDS_S)
    next(fault, None)
    row.well_after_s = site.wait_until_well(WELL_WITHIN_S) - (
        since if row.case.taken_back else row.broken_at
    )
    for _ in fault:
        pass


def wait_until_under_way(streams: Streams) -> None:
    """Return once all ask, and most are in the middle of an answer."""
    what = f"{IN_THE_MIDDLE} streams are in the middle"
    _wait_for(lambda: len(streams.running()) >= IN_THE_MIDDLE, what, STREAMS_RUN_WITHIN_S)


def wait_for_end(streams: Sequence[Stream]) -> float:
    """Return once all have ended, with the time."""
    all_ended = "they have ended"
    return _wait_for(lambda: all(s.ended for s in streams), all_ended, STREAMS_END_WITHIN_S)


def _wait_for(condition: Callable[[], bool], what: str, timeout_s: float) -> float:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout_s:g} s: {what}")
        time.sleep(0.02)
    return time.monotonic()


def count(row: Row, streams: Streams) -> None:
    """Take in how the streams ended."""
    for stream in streams.ended:
        verdict = judge(stream)
        row.fates[verdict.fate] += 1
        if verdict.fate in (Fate.WHOLE, Fate.CONTINUED):
            row.longest_pause_s = max(row.longest_pause_s, stream.longest_pause_s)
            continue
        if stream.ended is not None:
            row.last_failure_s = max(row.last_failure_s or 0.0, stream.ended - row.broken_at)
        if verdict.fate is Fate.TRANSPORT and row.case.in_front:
            continue
        row.lost += verdict.fate is not Fate.CUT
        _problem(row, stream, verdict)
    for retry in streams.retries:
        verdict = judge(retry)
        whole = verdict.fate in (Fate.WHOLE, Fate.CONTINUED)
        row.retries += 1
        row.whole_retries += whole
        row.replays += retry.replayed
        if not whole:
            _problem(row, retry, verdict)


def count_afterwards(row: Row, streams: Streams) -> None:
    """Take in how those ended that were asked when everything was as before."""
    for stream in streams.ended:
        verdict = judge(stream)
        whole = verdict.fate in (Fate.WHOLE, Fate.CONTINUED)
        row.afterwards += 1
        row.whole_afterwards += whole
        if not whole:
            _problem(row, stream, verdict)


def _problem(row: Row, stream: Stream, verdict: Verdict) -> None:
    row.problems.append(
        f"{verdict.fate}: {verdict.reason}; {stream.question.path} "
        f"{stream.question.body['model']}, key {stream.key}, answered by {stream.answered_by}, "
        f"from {stream.began - row.broken_at:+.1f} s "
        f"to {(stream.ended or math.nan) - row.broken_at:+.1f} s: ...{stream.last()}"
    )
