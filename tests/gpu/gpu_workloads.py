"""Work for a device in known amounts: products of large matrices, alone and side by side.

Everything runs on a CPU as well, where it only shows that the code does.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext

import torch

# Power sensors look at 25 ms of every 100 ms (A100, H100; arXiv 2312.02741): bursts must come
# faster than they look, and not in step with them.
PERIOD_S = 0.03
BARRIER_TIMEOUT_S = 60.0


class MatmulLoad:
    """Square products in bf16, on a CUDA stream of its own.

    Random numbers, not zeros: zeros flip no bits and draw less power.

    Args:
        size: Rows of the matrices; 4,096 and more fill a device, so that two loads take turns.
    """

    def __init__(self, device: torch.device, size: int) -> None:
        self._left, self._right = torch.randn(2, size, size, device=device).bfloat16()
        self._product = torch.empty_like(self._left)
        self._stream = _new_stream(device)

    def multiply(self, times: int) -> None:
        """Do so many products; returns when they are done."""
        with self._on_stream():
            for _ in range(times):
                torch.matmul(self._left, self._right, out=self._product)
        if self._stream is not None:
            self._stream.synchronize()

    def seconds_each(self, times: int) -> float:
        """Mean time of so many products; run some before, the first one is slow."""
        began = time.perf_counter()
        self.multiply(times)
        return (time.perf_counter() - began) / times

    def keep_busy(self, share: float, seconds: float) -> None:
        """Compute for a share of the time, in bursts.

        Args:
            share: 0 (only wait) to 1.
        """
        end = time.perf_counter() + seconds
        while (began := time.perf_counter()) < end:
            while time.perf_counter() < began + share * PERIOD_S:
                self.multiply(1)
            time.sleep(max(0.0, began + PERIOD_S - time.perf_counter()))

    def _on_stream(self) -> AbstractContextManager[object]:
        return nullcontext() if self._stream is None else torch.cuda.stream(self._stream)


def _new_stream(device: torch.device) -> torch.cuda.Stream | None:
    if device.type != "cuda":
        return None
    # The matrices are made on another stream, which nothing else would wait for.
    torch.cuda.synchronize(device)
    stream: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    return stream


def side_by_side(works: Sequence[Callable[[], object]], seconds: float) -> int:
    """Let threads do their work at the same time, over and over, each once a round.

    A round ends when the slowest has finished, so the amounts stand in a fixed ratio whatever the
    device lets pass first.

    Returns:
        Rounds that were done, at least one.

    Raises:
        Exception: What a work raised.
    """
    end = time.perf_counter() + seconds
    rounds = 0

    def count() -> None:
        nonlocal rounds
        rounds += time.perf_counter() < end or rounds == 0

    barrier = threading.Barrier(len(works), action=count, timeout=BARRIER_TIMEOUT_S)

    def repeat(work: Callable[[], object]) -> None:
        done = 0
        try:
            while True:
                barrier.wait()
                if rounds == done:
                    return
                work()
                done += 1
        except threading.BrokenBarrierError:
            return
        except BaseException:
            barrier.abort()
            raise

    with ThreadPoolExecutor(len(works)) as threads:
        for future in [threads.submit(repeat, work) for work in works]:
            future.result()
    return rounds
