"""Reading tool calls and reasoning out of an answer holds nobody else up.

vLLM's parsers run on the replica's event loop, and what some of them take grows with the square or
the cube of the answer: `glm45` takes 10 s for 8,000 characters in which one call is opened after
the other, `qwen3_coder` 4 s for 16,000 [measured: vLLM 0.29]. A client can have such an answer
written. So a long whole answer is read in a thread with a limit of time, and a stream whose tokens
are dear to read is read less often: vLLM hands on the tokens of a pause as one piece.

Private names of vLLM 0.29, held by tests/integration/test_engine_contract.py.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import Any
from weakref import WeakValueDictionary

from vllm.sampling_params import RequestOutputKind

from deployments.replica.engine.client import current_trail
from deployments.replica.request_trace import Trail
from deployments.replica.vetting.constraints import REJECTED, ConstraintError

LONG_CHARS = 2_000
"""Shorter whole answers are read on the event loop: up to 0.1 s, `dots` up to 6 [measured]."""
READERS = 2
QUICK_S = 0.005
"""Processor time for one piece of a stream; what takes no more is read as it comes."""
PAUSE_FACTOR, LONGEST_PAUSE_S = 19.0, 2.0
"""For what took longer twice in a row: a twentieth of the event loop, as far as the pause goes."""
SHARE, BEYOND_S = 0.07, 1.0
"""Of the time that an answer may be read, and seconds that it may take beyond that."""


class _TooLongError(BaseException):
    """No `Exception`: the parsers catch those."""


def unreadable(trail: Trail, why: str) -> ConstraintError:
    """The error that ends an answer."""
    field = trail.constrained_by or "tools"
    error = ConstraintError(400, REJECTED, f"{field}: the answer {why}", field)
    trail.rejection = error.status, error.error
    return error


def reader(parser_cls: type[Any], auto_tools: bool) -> type[Any]:
    """A parser of vLLM that leaves word in the trail of its request.

    Args:
        parser_cls: vLLM's.
        auto_tools: Whether the engine reads tool calls that the client leaves to the model.
    """

    class Reader(parser_cls):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            if (trail := current_trail.get()) is not None:
                trail.parser = self

        def parse_delta(self, *args: Any, **kwargs: Any) -> Any:
            trail = current_trail.get()
            began = time.thread_time()
            try:
                return super().parse_delta(*args, **kwargs)
            except RecursionError as error:
                if trail is None:
                    raise
                raise unreadable(trail, "is nested too deep to be read") from error
            finally:
                if trail is not None:
                    trail.reading_s += time.thread_time() - began

        def parse(self, text: str, *args: Any, **kwargs: Any) -> Any:
            trail = current_trail.get()
            if trail is not None and text in trail.read:
                return trail.read[text]
            return super().parse(text, *args, **kwargs)

        def read(self, text: str, request: Any, ids: Any, seconds: float) -> Any:
            """The same within so much of a processor.

            Raises:
                TimeoutError: It takes more.
            """
            until = time.thread_time() + seconds

            def watch(*_: Any) -> None:
                if time.thread_time() > until:
                    raise _TooLongError

            # Called by this thread for each call of a function.
            sys.setprofile(watch)
            try:
                return super().parse(
                    text, request, enable_auto_tools=auto_tools, model_output_token_ids=ids
                )
            except _TooLongError:
                raise TimeoutError from None
            finally:
                sys.setprofile(None)

    return Reader


class Pace:
    """How often one stream is read.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last = clock()
        self._took_s = 0.0
        self._beyond_s = 0.0

    def pause_s(self, took_s: float) -> float:
        """Seconds until the next piece is to be read.

        Args:
            took_s: Processor time that the last one took.

        Raises:
            TimeoutError: It takes too much for an event loop that others need.
        """
        now = self._clock()
        elapsed_s, self._last = now - self._last, now
        if took_s > QUICK_S:
            self._beyond_s += took_s
        self._beyond_s = max(self._beyond_s - SHARE * elapsed_s, 0.0)
        if self._beyond_s > BEYOND_S:
            raise TimeoutError
        # What took long once was something else: a collection of garbage, say.
        lasting_s, self._took_s = min(took_s, self._took_s), took_s
        return min(PAUSE_FACTOR * lasting_s, LONGEST_PAUSE_S) if lasting_s > QUICK_S else 0.0


class Reading:
    """Of one engine's answers.

    Args:
        seconds: Says what a whole answer may take of a processor.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._threads = ThreadPoolExecutor(READERS, "reading")
        # By API key: one has one answer read at a time and leaves a thread to the others.
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def paced(
        self, generate: Callable[..., AsyncIterator[Any]]
    ) -> Callable[..., AsyncIterator[Any]]:
        """Wrap an engine client's `generate` for answers that a parser reads."""

        async def pace(outputs: Any, trail: Trail, whole: bool) -> AsyncIterator[Any]:
            pace = Pace()
            async with aclosing(outputs):
                async for output in outputs:
                    if whole:
                        await self._read(trail, output)
                    yield output
                    took_s, trail.reading_s = trail.reading_s, 0.0
                    try:
                        pause_s = pace.pause_s(took_s)
                    except TimeoutError:
                        raise unreadable(trail, "takes too long to be read") from None
                    if pause_s:
                        await asyncio.sleep(pause_s)

        def wrapper(prompt: Any, params: Any, request_id: str, **kwargs: Any) -> AsyncIterator[Any]:
            outputs = generate(prompt, params, request_id, **kwargs)
            trail = current_trail.get()
            if trail is None or trail.parser is None:
                return outputs
            return pace(outputs, trail, params.output_kind == RequestOutputKind.FINAL_ONLY)

        return wrapper

    async def _read(self, trail: Trail, output: Any) -> None:
        """Read what is long before vLLM does, which then takes it from the trail."""
        long = [choice for choice in output.outputs if len(choice.text) > LONG_CHARS]
        if not long:
            return
        turn = self._turns.setdefault(trail.caller, asyncio.Lock())
        loop, seconds = asyncio.get_running_loop(), self._seconds()
        async with turn:
            for choice in long:
                work = (choice.text, trail.request, list(choice.token_ids), seconds)
                try:
                    found = await loop.run_in_executor(self._threads, trail.parser.read, *work)
                except TimeoutError:
                    raise unreadable(trail, f"takes more than {seconds:g} s to be read") from None
                trail.read[choice.text] = found
