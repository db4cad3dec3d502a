import asyncio
from collections import Counter
from collections.abc import Callable

import pytest
from cpu_time import ENGINE, MODEL, PROXY, ROUTER
from loadgen import TEMPLATE_TOKENS, Load, LoadError, Measurement, Target, measure
from openai_double import OpenAiDouble, serving

WHOLE = Load(clients=3, output_tokens=5, stream=False)
STREAM = Load(clients=1, output_tokens=8, stream=True)


def measured(
    double: OpenAiDouble,
    load: Load,
    seconds: float = 0.2,
    cpu_seconds: Callable[[], Counter[str]] = Counter,
) -> Measurement:
    async def run() -> Measurement:
        async with serving(double) as url:
            return await measure(Target(url, "m", cpu_seconds), load, seconds, "seed")

    return asyncio.run(run())


def test_as_many_clients_as_asked_for_and_no_prompt_twice() -> None:
    double = OpenAiDouble(token_s=0.02)
    measurement = measured(double, WHOLE)
    assert double.most_at_once == 3
    assert len(set(double.prompts)) == len(double.prompts) == len(measurement.exchanges) + 3
    assert all(len(str(p)) == WHOLE.input_tokens - TEMPLATE_TOKENS for p in double.prompts)
    assert measurement.tokens_per_s == pytest.approx(5 * measurement.requests_per_s)


def test_a_piece_for_every_token_that_comes_by_itself() -> None:
    measurement = measured(OpenAiDouble(token_s=0.05), STREAM)
    # Eight tokens; what ends the stream comes with the last or after it. A stall of this process
    # may make one piece of two.
    assert 6 <= measurement.reads_per_request <= 9
    assert 0.75 <= measurement.tokens_apart <= 1
    assert 0.05 <= measurement.ttft_p50_s < measurement.runtime_p50_s - 0.3
    assert measurement.gap_p95_s >= 0.05


def test_tokens_that_are_held_back_come_as_one_piece() -> None:
    measurement = measured(OpenAiDouble(token_s=0.02, together=4), STREAM)
    assert measurement.reads_per_request <= 3
    assert measurement.tokens_apart <= 3 / 8


def test_cpu_time_is_that_of_the_requests_that_are_counted() -> None:
    readings = iter(
        [
            Counter({ROUTER: 1.0, MODEL: 2.0, ENGINE: 3.0, PROXY: 1.0}),
            Counter({ROUTER: 1.5, MODEL: 2.25, ENGINE: 9.0, PROXY: 1.125}),
        ]
    )
    measurement = measured(OpenAiDouble(), WHOLE, cpu_seconds=lambda: next(readings))
    requests = len(measurement.exchanges)
    assert measurement.cpu_per_request_s == pytest.approx(0.75 / requests)
    assert measurement.proxy_cpu_per_request_s == pytest.approx(0.125 / requests)


@pytest.mark.parametrize("load", [WHOLE, STREAM])
def test_less_work_than_asked_for_is_an_error(load: Load) -> None:
    with pytest.raises(LoadError, match="got"):
        measured(OpenAiDouble(lost_tokens=1), load)


def test_a_refusal_is_an_error() -> None:
    with pytest.raises(LoadError, match="status 503"):
        measured(OpenAiDouble(status=503), WHOLE)
