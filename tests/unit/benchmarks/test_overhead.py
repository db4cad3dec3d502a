import asyncio
from contextlib import AsyncExitStack

import overhead
import pytest
from loadgen import Load, LoadError, Measurement, Target
from openai_double import OpenAiDouble, serving
from overhead_report import AUTO, LITELLM, METRICS, PINNED, VLLM

Measured = dict[Load, dict[str, list[Measurement]]]


@pytest.fixture(autouse=True)
def _no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overhead, "REST_S", 0.0)


def rounds(**doubles: OpenAiDouble) -> tuple[Measured, dict[str, str]]:
    """One round; what was measured, and what is missing."""
    missing: dict[str, str] = {}

    async def run() -> Measured:
        async with AsyncExitStack() as stack:
            targets = {
                name: Target(await stack.enter_async_context(serving(double)), "m")
                for name, double in doubles.items()
            }
            return await overhead.measure_rounds(targets, 1, 0.05, missing)

    return asyncio.run(run()), missing


def test_every_server_is_measured_under_every_load() -> None:
    doubles = {name: OpenAiDouble() for name in (VLLM, PINNED, AUTO)}
    measured, missing = rounds(**doubles)
    assert not missing
    assert measured.keys() == METRICS.keys()
    for load, of_load in measured.items():
        assert list(of_load) == [VLLM, PINNED, AUTO]
        for name, (measurement,) in of_load.items():
            assert measurement.load == load
            assert len(measurement.exchanges) < len(doubles[name].prompts)
    for double in doubles.values():
        # Neither between rounds nor between loads.
        assert len(set(double.prompts)) == len(double.prompts)


def test_a_peer_that_fails_is_missing_and_the_others_go_on() -> None:
    measured, missing = rounds(
        **{VLLM: OpenAiDouble(), LITELLM: OpenAiDouble(status=500), PINNED: OpenAiDouble()}
    )
    assert list(missing) == [LITELLM]
    assert "status 500" in missing[LITELLM]
    assert all(list(of_load) == [VLLM, PINNED] for of_load in measured.values())


def test_without_ours_there_is_nothing_to_say() -> None:
    with pytest.raises(LoadError, match="status 500"):
        rounds(**{VLLM: OpenAiDouble(), PINNED: OpenAiDouble(status=500)})
