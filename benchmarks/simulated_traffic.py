"""What arrives in the simulation: the requests of a trace, or random ones like them."""

from __future__ import annotations

import csv
import gzip
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from itertools import accumulate
from pathlib import Path

from simulated_cluster import Job

from scheduler.costs.output_length import OutputLength


@dataclass(frozen=True)
class Trace:
    """Arrivals of a real service, or such as a real service could have.

    Attributes:
        times_s: Since the first one, ascending.
        tokens: Input and output tokens of each.
    """

    times_s: Sequence[float]
    tokens: Sequence[tuple[int, int]]

    @cached_property
    def lengths(self) -> OutputLength:
        """Twenty equally likely answers."""
        ascending = sorted(output for _, output in self.tokens)
        places = ((i + 0.5) / 20 for i in range(20))
        return OutputLength(tuple(float(ascending[int(p * len(ascending))]) for p in places))

    def jobs(self, rate_per_s: float, count: int, draw: random.Random) -> list[Job]:
        """So many arrivals at this mean rate, in order.

        The trace is sped up. Where it has too few rows, copies of it that begin elsewhere run
        beside it. Lengths come in random order: sped up, the slow change of what a service is asked
        would look like routers that swing.
        """
        rows = len(self.times_s)
        copies = math.ceil(count / rows)
        cycle_s = copies * rows / rate_per_s
        speed = cycle_s * (rows - 1) / rows / self.times_s[-1]
        shifts_s = [0.0, *(draw.random() * cycle_s for _ in range(copies - 1))]
        times_s = sorted((at * speed + s) % cycle_s for s in shifts_s for at in self.times_s)
        tokens = [pair for _ in shifts_s for pair in draw.sample(self.tokens, rows)]
        return [Job(at, *pair) for at, pair in zip(times_s[:count], tokens, strict=False)]


def read_trace(path: Path) -> Trace:
    """A CSV file, gzipped or not, with the columns timestamp, input_tokens, output_tokens.

    Raises:
        OSError: It cannot be read.
        ValueError: It has other columns, or all its requests at one moment.
    """
    content = path.read_bytes()
    if path.suffix == ".gz":
        content = gzip.decompress(content)
    try:
        rows = [
            (
                # Python's clock has six decimals, the trace has seven.
                datetime.fromisoformat(row["timestamp"][:26]).timestamp(),
                max(int(row["input_tokens"]), 1),
                max(int(row["output_tokens"]), 1),
            )
            for row in csv.DictReader(content.decode().splitlines())
        ]
    except KeyError as error:
        raise ValueError(f"{path}: no column {error.args[0]!r}") from error
    rows.sort()
    if len(rows) < 2 or rows[0][0] == rows[-1][0]:
        raise ValueError(f"{path}: needs requests at two moments at least")
    return Trace([at - rows[0][0] for at, _, _ in rows], [row[1:] for row in rows])


def random_trace(count: int = 10_000, seed: int = 0) -> Trace:
    """Poisson arrivals, log-normal lengths with about the means of a chat service."""
    draw = random.Random(seed)
    times_s = list(accumulate((draw.expovariate(5.0) for _ in range(count - 1)), initial=0.0))
    tokens = [
        (
            min(max(round(draw.lognormvariate(math.log(900), 0.8)), 1), 14_000),
            min(max(round(draw.lognormvariate(math.log(160), 0.8)), 1), 1000),
        )
        for _ in range(count)
    ]
    return Trace(times_s, tokens)
