"""Lengths of requests as a production chat service has them, scaled to a small context."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

CONTEXT = 2048
# Azure's conversation trace of 2023: the logarithm of its lengths, mean and standard deviation.
INPUT_LOG, OUTPUT_LOG = (6.71, 0.97), (5.04, 0.91)
LONGEST = 14_089


def draw_lengths(trace: Path | None, n: int, rng: random.Random) -> list[tuple[int, int]]:
    """Prompt and generated tokens of n requests.

    Args:
        trace: CSV with input_tokens and output_tokens; without it they are drawn from log-normal
            distributions with the trace's moments.
        n: How many.
        rng: Draws them.
    """
    if trace is None:
        pairs = [_drawn(rng) for _ in range(n)]
        longest = LONGEST
    else:
        frame = pd.read_csv(trace)
        everything = list(zip(frame["input_tokens"], frame["output_tokens"], strict=True))
        longest = int((frame["input_tokens"] + frame["output_tokens"]).max())
        pairs = rng.sample(everything, n)
    return scaled(pairs, longest)


def scaled(pairs: Sequence[tuple[int, int]], longest: int) -> list[tuple[int, int]]:
    """Lengths that fit into the context.

    Args:
        pairs: Prompt and generated tokens.
        longest: Their sum where it is largest; that one just fits.
    """
    scale = (CONTEXT - 2) / longest
    return [(max(round(tin * scale), 1), max(round(tout * scale), 1)) for tin, tout in pairs]


def _drawn(rng: random.Random) -> tuple[int, int]:
    tin, tout = (round(rng.lognormvariate(*log)) for log in (INPUT_LOG, OUTPUT_LOG))
    return min(tin, LONGEST - 1000), min(tout, 1000)
