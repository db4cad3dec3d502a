from __future__ import annotations

import asyncio

import pytest
from open_load import Offer, Outcome, Window, _fate, offer
from openai_double import OpenAiDouble, serving

WHOLE = b'data: {"choices":[{"finish_reason":"length"}]}\n\ndata: [DONE]\n\n'


def window(double: OpenAiDouble, load: Offer) -> Window:
    async def scenario() -> Window:
        async with serving(double) as url:
            return await offer(url, "m", load, "seed")

    return asyncio.run(scenario())


def test_requests_come_whether_or_not_others_are_answered() -> None:
    double = OpenAiDouble(token_s=0.3)
    seen = window(double, Offer(per_s=200, seconds=0.2, output_tokens=1, deadline_s=9))
    assert 15 < len(seen.outcomes) < 80
    assert double.most_at_once > 10
    # The double never gives a finish reason.
    assert seen.fates == {"cut": len(seen.outcomes)}
    assert all(outcome.took_s >= 0.3 for outcome in seen.outcomes)


def test_what_no_server_answers_is_an_error() -> None:
    load = Offer(per_s=100, seconds=0.1, output_tokens=1, deadline_s=9)
    seen = asyncio.run(offer("http://127.0.0.1:9", "m", load, "seed"))
    assert set(seen.fates) == {"error"}


@pytest.mark.parametrize(
    ("status", "data", "fate"),
    [
        (200, WHOLE, ("whole", None)),
        (200, WHOLE[:-16], ("cut", None)),
        (200, b"data: [DONE]\n\n", ("cut", None)),
        (200, WHOLE[:30] + b'\n\ndata: {"error": {"code": "x"}}\n\n', ("error", "x")),
        (429, b'{"error": {"code": "deadline"}}', ("turned away", "deadline")),
        (503, b'{"error": {"code": "no_model_available"}}', ("error", "no_model_available")),
        (502, b"<html>", ("error", None)),
    ],
)
def test_what_became_of_a_request(status: int, data: bytes, fate: tuple[str, str | None]) -> None:
    assert _fate(status, data) == fate


def test_goodput_counts_what_came_in_time_while_requests_came() -> None:
    def ended(sent: float, took: float) -> Outcome:
        return Outcome("whole", 200, None, sent, sent + took)

    load = Offer(per_s=1, seconds=10, output_tokens=1, deadline_s=2)
    outcomes = [
        ended(100, 1.5),  # before the queue can be full
        ended(101, 1.5),
        ended(104, 2.5),  # late
        ended(105, 2.0),
        ended(109, 1.5),  # after the last request
        Outcome("turned away", 429, "deadline", 106, 106.01),
    ]
    seen = Window(load, outcomes, 100)
    assert seen.goodput == 2 / 8
    assert seen.in_time == 4
    assert seen.fates == {"whole": 5, "turned away": 1}
