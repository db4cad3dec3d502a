"""A random 7B model that generates exact numbers of tokens, and what that costs as trials.

The shape is Mistral-7B's; nothing is downloaded and the text is noise. What it costs does not
depend on what the weights say. On CUDA the passes are replayed as graphs, as serving engines do it,
so that the device is timed and not the host. It is no serving engine otherwise: batches are static,
and a step attends to room for the whole answer from the first.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from gpu.gpu_decoder import Decoder
from gpu.gpu_metering import metered
from transformers import MistralConfig, MistralForCausalLM

from cluster.energy.counters import EnergyCounter
from profiling.trials.log import Trial

BATCHES = (1, 2, 4, 8, 16)
INPUT_TOKENS = (16, 4096)
OUTPUT_TOKENS = (1, 256)
# bf16: two bytes for each number.
CACHE_BYTES_PER_TOKEN = 2 * 2 * 32 * 8 * 128
# The widest moment of a prompt's way through one layer: gate, up, their product and what the
# activation makes of one of them, 14,336 numbers each, beside the hidden states in float32.
ACTIVATION_BYTES_PER_TOKEN = 2 * 4 * 14_336 + 4 * 4 * 4096
MODEL_BYTES = 2 * 7_241_732_096
SPARE_BYTES = 3 << 29


def shape_7b() -> MistralConfig:
    """Mistral-7B-v0.2's shape: 32 layers, grouped-query attention, no sliding window."""
    return MistralConfig(
        vocab_size=32_000,
        hidden_size=4096,
        intermediate_size=14_336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        max_position_embeddings=8192,
        sliding_window=None,
    )


def random_model(config: MistralConfig, device: torch.device) -> MistralForCausalLM:
    """A model with seeded random weights in bf16, made on the device itself."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices), device:
        torch.manual_seed(0)
        model = MistralForCausalLM._from_config(
            config, dtype=torch.bfloat16, attn_implementation="sdpa"
        )
    return model.eval()


class Generation:
    """Greedy decoding of one batch, as often as wanted.

    The pass over the prompts gives the first token, every further pass one more. No token ends a
    sequence: the count is exact.
    """

    def __init__(
        self, model: MistralForCausalLM, prompts: torch.Tensor, output_tokens: int
    ) -> None:
        """Make room, and capture the passes where there is CUDA.

        Args:
            prompts: Token ids, batch x input tokens.
            output_tokens: 1 or more.
        """
        self._decoder = Decoder(model, prompts, output_tokens)
        self._generated = self._decoder.tokens[:, prompts.shape[1] :][:, :output_tokens]
        self._prefill = _captured(self._decoder.prefill, prompts.device)
        # Without a second token there need not be a slot that the pass could write to.
        self._steps = output_tokens - 1
        if self._steps:
            self._decode = _captured(self._decoder.decode, prompts.device)
        # The first replay brings a graph to the device.
        self._play(min(1, self._steps))

    def run(self) -> torch.Tensor:
        """Generate everything anew; returns when the device is done.

        Returns:
            Token ids, batch x output tokens; the next run overwrites them.
        """
        self._play(self._steps)
        return self._generated

    def _play(self, steps: int) -> None:
        self._prefill()
        for _ in range(steps):
            self._decode()
        if self._generated.is_cuda:
            torch.cuda.synchronize(self._generated.device)


def _captured(work: Callable[[], object], device: torch.device) -> Callable[[], object]:
    """What replays the work's kernels as one CUDA graph; the work itself on a CPU."""
    if device.type != "cuda":
        return work
    current, aside = torch.cuda.current_stream(device), _side_stream(device)
    # Libraries choose kernels and take memory at the first call, which a capture does not allow.
    aside.wait_stream(current)
    with torch.cuda.stream(aside):
        work()
    current.wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=aside):
        work()
    return graph.replay


@cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    # One for all: what cuBLAS keeps for a stream, it keeps for good.
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


@dataclass(frozen=True, slots=True)
class Configuration:
    """One point of the grid.

    Attributes:
        batch: Equal requests that run side by side.
    """

    input_tokens: int
    output_tokens: int
    batch: int


def bytes_needed(tokens: int) -> int:
    """Memory of the model with so many tokens, prompts and answers of a whole batch."""
    per_token = CACHE_BYTES_PER_TOKEN + ACTIVATION_BYTES_PER_TOKEN
    return MODEL_BYTES + SPARE_BYTES + tokens * per_token


def most_tokens(free_bytes: int) -> int:
    """How many tokens fit beside the model; `bytes_needed` the other way round."""
    per_token = CACHE_BYTES_PER_TOKEN + ACTIVATION_BYTES_PER_TOKEN
    return max(0, (free_bytes - bytes_needed(0)) // per_token)


def draw_configurations(count: int, tokens_that_fit: int, seed: int) -> list[Configuration]:
    """Random lengths, each order of magnitude as likely as another, and random batches.

    A batch that does not fit is halved until it does.

    Raises:
        ValueError: Not even one request of the longest kind fits.
    """
    if tokens_that_fit < INPUT_TOKENS[1] + OUTPUT_TOKENS[1]:
        raise ValueError(f"tokens_that_fit: one request may have more than {tokens_that_fit}")
    rng = random.Random(seed)
    drawn = []
    for _ in range(count):
        tokens_in, tokens_out = (
            round(math.exp(rng.uniform(math.log(low), math.log(high))))
            for low, high in (INPUT_TOKENS, OUTPUT_TOKENS)
        )
        batch = rng.choice(BATCHES)
        while batch * (tokens_in + tokens_out) > tokens_that_fit:
            batch //= 2
        drawn.append(Configuration(tokens_in, tokens_out, batch))
    return drawn


def measure(
    model: MistralForCausalLM,
    configuration: Configuration,
    counter: EnergyCounter,
    *,
    idle_watts: float,
    at_least_s: float,
    accelerator: str,
) -> Trial:
    """Generate over and over; the time of one generation and the energy of one request of it.

    Args:
        idle_watts: Subtracted over the whole window.
        at_least_s: Long against the counter's refresh.
        accelerator: Name of the device.
    """
    prompts = torch.randint(
        model.config.vocab_size,
        (configuration.batch, configuration.input_tokens),
        device=model.device,
    )
    # What a shape costs once (memory, capture) belongs to no request.
    generation = Generation(model, prompts, configuration.output_tokens)
    started_at = time.time()
    result = metered(counter, generation.run, at_least_s)
    joules = result.joules - idle_watts * result.window_s
    return Trial(
        run_id="gpu",
        model="random-mistral-7b",
        accelerator=accelerator,
        node_id="",
        replica_id="",
        concurrency=configuration.batch,
        input_tokens=configuration.input_tokens,
        output_tokens=configuration.output_tokens,
        cached_input_tokens=0,
        queue_time_s=0.0,
        ttft_s=None,
        runtime_s=result.busy_s / result.runs,
        energy_joules=joules / result.runs / configuration.batch,
        energy_source=counter.source,
        started_at=started_at,
    )
