"""What the GPU tests are made of, on a CPU: it must work before a GPU is asked for."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import pytest
import torch
from gpu.gpu_decoder import CHUNK, Decoder
from gpu.gpu_generation import (
    BATCHES,
    MODEL_BYTES,
    Configuration,
    Generation,
    bytes_needed,
    draw_configurations,
    measure,
    most_tokens,
    random_model,
    shape_7b,
)
from gpu.gpu_metering import (
    NoGpuError,
    PowerSampler,
    find_gpu,
    idle_watts,
    metered,
    next_tick,
    trapezoid,
)
from gpu.gpu_workloads import MatmulLoad, side_by_side
from transformers import MistralConfig, MistralForCausalLM

CPU = torch.device("cpu")
TINY = MistralConfig(
    vocab_size=512,
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=128,
    sliding_window=None,
    # Large enough that attention is not nearly uniform, whatever the positions.
    initializer_range=0.1,
)


class FakeTime:
    """A clock that each look moves on by a millisecond."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        self.now += 0.001
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@dataclass(slots=True)
class SteadyCounter:
    """100 W, told every 20 ms."""

    time: FakeTime
    source: str = "nvml"

    refresh_s: float = 0.02
    limits: Mapping[str, float] = field(default_factory=lambda: {"gpu": 1000.0})

    def read(self) -> dict[str, float]:
        return {"gpu": 100 * self.refresh_s * int(self.time.now / self.refresh_s)}


@pytest.fixture
def fake_time(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    fake = FakeTime()
    monkeypatch.setattr("gpu.gpu_metering.time", fake)
    monkeypatch.setattr("gpu.gpu_workloads.time", fake)
    return fake


@pytest.fixture(scope="module")
def tiny() -> MistralForCausalLM:
    return random_model(TINY, CPU)


def test_a_machine_without_cuda_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(NoGpuError, match="torch finds no CUDA device"):
        find_gpu()


def test_a_driver_that_torch_cannot_use_is_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def too_old() -> bool:
        warnings.warn("the driver is too old", stacklevel=1)
        return False

    monkeypatch.setattr(torch.cuda, "is_available", too_old)
    with pytest.raises(NoGpuError, match="the driver is too old"):
        find_gpu()


def test_trapezoids_between_samples() -> None:
    seconds, watts = [0.0, 1.0, 3.0], [10.0, 20.0, 0.0]
    assert trapezoid(seconds, watts, 0.0, 3.0) == pytest.approx(15 + 20)
    # 15 W at 0.5, 20 W at 1, 10 W at 2
    assert trapezoid(seconds, watts, 0.5, 2.0) == pytest.approx(17.5 * 0.5 + 15 * 1)
    with pytest.raises(ValueError, match=r"sampled from 0\.0 to 3\.0"):
        trapezoid(seconds, watts, 0.0, 3.5)


def test_the_sampler_integrates_what_it_reads() -> None:
    with PowerSampler(lambda: 80.0) as sampler:
        start = time.perf_counter()
        time.sleep(0.1)
        end = time.perf_counter()
    assert sampler.joules(start, end) == pytest.approx(80 * (end - start))
    assert sampler.samples >= 2
    assert sampler.longest_gap_s > 0
    assert sampler.least_watts == sampler.most_watts == 80


def test_the_sampler_raises_what_stopped_it() -> None:
    readings = iter([80.0])

    def fail() -> float:
        for watts in readings:
            return watts
        raise OSError("fell off the bus")

    with pytest.raises(OSError, match="fell off the bus"), PowerSampler(fail):
        time.sleep(0.01)


def test_windows_begin_and_end_where_the_counter_is_refreshed(fake_time: FakeTime) -> None:
    result = metered(SteadyCounter(fake_time), lambda: fake_time.sleep(0.03), at_least_s=0.1)
    # A run takes 31 ms with the look at the clock.
    assert result.runs == 4
    assert result.busy_s == pytest.approx(4 * 0.031)
    assert result.window_s >= result.busy_s
    # A reading between two refreshes would be off by up to 2 J.
    assert result.joules == pytest.approx(100 * result.window_s, abs=0.3)
    assert idle_watts(SteadyCounter(fake_time), 0.2) == pytest.approx(100, rel=0.02)


def test_a_counter_that_stands_still_is_not_waited_for_forever(fake_time: FakeTime) -> None:
    class Still(SteadyCounter):
        def read(self) -> dict[str, float]:
            return {"gpu": 7.0}

    assert next_tick(Still(fake_time))[1] == 7.0
    assert fake_time.now > 1


def test_a_load_keeps_busy_for_its_share(
    fake_time: FakeTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = MatmulLoad(CPU, 32)
    busy = 0.0

    def takes_2_ms(self: MatmulLoad, times: int) -> None:
        nonlocal busy
        busy += 0.002 * times
        fake_time.sleep(0.002 * times)

    load.multiply(2)
    monkeypatch.setattr(MatmulLoad, "multiply", takes_2_ms)
    assert load.seconds_each(10) == pytest.approx(0.002, rel=0.1)
    busy = 0.0
    load.keep_busy(0.0, 3.0)
    assert busy == 0
    load.keep_busy(0.5, 3.0)
    # A third of the share is the looks at the clock.
    assert busy == pytest.approx(1.0, rel=0.1)


def test_side_by_side_everyone_works_once_a_round() -> None:
    done = {"a": 0, "b": 0}
    together = threading.Barrier(2, timeout=10)

    def work(name: str) -> Callable[[], None]:
        def once() -> None:
            together.wait()  # passes only if both run at the same time
            done[name] += 1

        return once

    rounds = side_by_side([work("a"), work("b")], 0.05)
    assert rounds >= 1
    assert done == {"a": rounds, "b": rounds}


def test_side_by_side_raises_what_one_raised() -> None:
    def fail() -> None:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        side_by_side([lambda: None, fail], 10.0)


def test_the_shape_is_7b() -> None:
    with torch.device("meta"):
        model = MistralForCausalLM(shape_7b())
    assert 2 * sum(p.numel() for p in model.parameters()) == MODEL_BYTES


@pytest.fixture(params=["cpu", pytest.param("cuda:0", marks=pytest.mark.gpu)])
def exact(request: pytest.FixtureRequest) -> MistralForCausalLM:
    """In float32, where two ways to the same logits can be compared."""
    device = torch.device(request.param)
    if device.type == "cuda" and not torch.cuda.is_available():
        pytest.skip("torch finds no CUDA device")
    return random_model(TINY, device).float()


# The last answer crosses from one chunk of the cache to the next.
@pytest.mark.parametrize(("input_tokens", "output_tokens"), [(9, 1), (9, 5), (CHUNK - 3, 7)])
@torch.no_grad()
def test_the_decoder_is_the_one_of_transformers(
    exact: MistralForCausalLM, input_tokens: int, output_tokens: int
) -> None:
    generator = torch.Generator().manual_seed(1)
    prompts = torch.randint(TINY.vocab_size, (3, input_tokens), generator=generator)
    prompts = prompts.to(exact.device)
    decoder = Decoder(exact, prompts, output_tokens)

    logits = [decoder.prefill()] + [decoder.decode() for _ in range(output_tokens - 1)]

    length = input_tokens + output_tokens
    expected = exact(input_ids=decoder.tokens[:, : length - 1]).logits[:, input_tokens - 1 :]
    torch.testing.assert_close(torch.stack(logits, dim=1), expected, atol=1e-4, rtol=1e-4)
    tokens = decoder.tokens[:, input_tokens:length]
    assert torch.equal(tokens, expected.argmax(-1))
    generation = Generation(exact, prompts, output_tokens)
    for _ in range(2):
        assert torch.equal(generation.run(), tokens)


def test_every_pass_after_the_first_sees_one_token(tiny: MistralForCausalLM) -> None:
    assert next(tiny.parameters()).dtype == torch.bfloat16
    seen: list[tuple[int, ...]] = []

    def watch(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        seen.append(tuple(inputs[0].shape))

    generation = Generation(tiny, torch.ones(2, 7, dtype=torch.long), 4)
    with tiny.model.embed_tokens.register_forward_pre_hook(watch):
        generation.run()
    assert seen == [(2, 7), (2, 1), (2, 1), (2, 1)]


def test_a_trial_is_that_of_one_request(tiny: MistralForCausalLM, fake_time: FakeTime) -> None:
    trial = measure(
        tiny,
        Configuration(input_tokens=12, output_tokens=3, batch=4),
        SteadyCounter(fake_time),
        idle_watts=40.0,
        at_least_s=0.015,
        accelerator="a CPU",
    )
    assert (trial.input_tokens, trial.output_tokens, trial.concurrency) == (12, 3, 4)
    assert trial.runtime_s == pytest.approx(0.001)
    # 15 runs in a window of 40 ms with 60 W above idle, shared by four requests.
    assert trial.energy_joules == pytest.approx(60 * 0.04 / 15 / 4, rel=0.1)
    assert (trial.energy_source, trial.accelerator) == ("nvml", "a CPU")


def _tokens(configurations: list[Configuration]) -> Iterator[int]:
    return (c.batch * (c.input_tokens + c.output_tokens) for c in configurations)


@pytest.mark.parametrize("gib", [22, 40, 80])
def test_configurations_fit_and_are_spread(gib: int) -> None:
    fit = most_tokens(gib << 30)
    drawn = draw_configurations(60, fit, seed=0)
    assert len(set(drawn)) > 50
    assert max(_tokens(drawn)) <= fit
    assert {c.batch for c in drawn} == set(BATCHES)
    assert min(c.input_tokens for c in drawn) < 64
    assert max(c.input_tokens for c in drawn) > 2048
    assert min(c.output_tokens for c in drawn) < 4
    assert max(c.output_tokens for c in drawn) > 128
    assert drawn == draw_configurations(60, fit, seed=0)


def test_a_device_that_is_too_small_is_refused() -> None:
    assert bytes_needed(0) > MODEL_BYTES
    assert most_tokens(bytes_needed(0)) == 0
    assert most_tokens(bytes_needed(9000)) == 9000
    assert most_tokens(bytes_needed(9000) - 1) == 8999
    with pytest.raises(ValueError, match="may have more than 0"):
        draw_configurations(1, 0, seed=0)
