"""Bounds what one request, and one caller, has in the engine at a time; the rest waits in line.

vLLM takes each answer of a request (`n`, several prompts, beams) as a sequence of its own. All at
once they would hold every slot of the engine and every place before it. Here a request has at most
`share` sequences in the engine, and a caller too while another one asks; of those that wait, each
request and each caller has a queue of its own, so no other request waits behind them. What is
within its share goes straight to the engine, whose own queue orders it by priority.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from deployments.replica.request_trace import Trail
from scheduler.costs.load import share

ALONE_AFTER_S = 60.0
"""Seconds after which a caller that asks nothing no longer narrows the share of the others."""


@dataclass(slots=True)
class _Flow:
    """Sequences of a request or of a caller.

    Attributes:
        most: Of them, that may be past this point at a time.
        past: Of them, now.
        waiting: The others, those first that go on first.
    """

    most: Callable[[], int]
    past: int = 0
    waiting: list[tuple[int, int, _Sequence]] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class _Sequence:
    """One answer on its way into the engine.

    Attributes:
        flows: That it has to pass, in this order.
        passed: So many of them.
        entered: The engine has it.
        gone: It has ended, or was cancelled.
    """

    request: Any
    trail: Trail
    flows: tuple[_Flow, ...]
    rank: int
    number: int
    came: float
    passed: int = 0
    entered: bool = False
    gone: bool = False


class EngineQueue:
    """In front of one engine.

    Args:
        enter: Hands a request of vLLM's to the engine.
        drop: Tells the engine that some of its requests are not wanted any more.
        fail: Ends a request, by its id, that the engine did not take.
        slots: Sequences that the engine runs side by side.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        enter: Callable[[Any], Awaitable[None]],
        drop: Callable[[list[str]], Awaitable[None]],
        fail: Callable[[str, Exception], None],
        slots: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._enter, self._drop, self._fail = enter, drop, fail
        self._slots = slots
        self._clock = clock
        self._sequences: dict[str, _Sequence] = {}
        self._requests: dict[int, _Flow] = {}
        self._callers: dict[str, _Flow] = {}
        self._asked: dict[str, float] = {}
        self._entering: set[asyncio.Task[None]] = set()
        self._number = 0

    async def add(self, request: Any, trail: Trail | None) -> None:
        """Hand a sequence to the engine, now or when it is within its share.

        Args:
            request: Of vLLM's, with `request_id` and `priority`.
            trail: Of the request that it belongs to; `None` for the replica's own.

        Raises:
            Exception: The engine does not take it.
        """
        if trail is None:
            await self._enter(request)
            return
        # vLLM's beam search knows no priorities.
        request.priority = request.priority or trail.rank
        self._number += 1
        sequence = _Sequence(
            request, trail, self._flows(trail), request.priority, self._number, self._clock()
        )
        self._sequences[request.request_id] = sequence
        if self._advance(sequence):
            sequence.entered = True
            await self._enter(request)

    async def abort(self, ids: Iterable[str]) -> None:
        """Forget cancelled sequences, here and in the engine."""
        given = list(ids)
        known = [self._sequences.pop(one) for one in given if one in self._sequences]
        # All before the first: none of them may take the place of another.
        for sequence in known:
            sequence.gone = True
        for sequence in known:
            self._leave(sequence)
        waiting = {s.request.request_id for s in known if not s.entered}
        await self._drop([one for one in given if one not in waiting])

    def ended(self, request_id: str) -> None:
        """A sequence has left the engine."""
        sequence = self._sequences.pop(request_id, None)
        if sequence is not None:
            sequence.gone = True
            self._leave(sequence)

    def _leave(self, sequence: _Sequence) -> None:
        for flow in sequence.flows[: sequence.passed]:
            flow.past -= 1
        for flow in reversed(sequence.flows):
            self._go_on(flow)
        request, *callers = sequence.flows
        if not request.past and not request.waiting:
            self._requests.pop(id(sequence.trail), None)
        if callers and not callers[0].past and not callers[0].waiting:
            self._callers.pop(sequence.trail.caller, None)

    def watch(self, process_outputs: Callable[..., Any]) -> Callable[..., Any]:
        """The `process_outputs` of vLLM's `OutputProcessor`, which sees every sequence end."""

        def watching(outputs: Any, *args: Any, **kwargs: Any) -> Any:
            for output in outputs:
                if output.finish_reason is not None:
                    self.ended(output.request_id)
            return process_outputs(outputs, *args, **kwargs)

        return watching

    def _flows(self, trail: Trail) -> tuple[_Flow, ...]:
        most = share(self._slots)
        # The trail lives as long as its sequences, which hold it.
        request = self._requests.setdefault(id(trail), _Flow(lambda: most))
        if not trail.caller:
            return (request,)
        self._asked[trail.caller] = self._clock()
        caller = self._callers.setdefault(trail.caller, _Flow(self._most_for_one))
        return request, caller

    def _most_for_one(self) -> int:
        now = self._clock()
        self._asked = {c: at for c, at in self._asked.items() if now - at < ALONE_AFTER_S}
        # Alone, a few more than run, so that none of the slots stays empty between two.
        alone = self._slots + share(share(self._slots))
        return alone if len({*self._asked, *self._callers}) == 1 else share(self._slots)

    def _advance(self, sequence: _Sequence) -> bool:
        """Whether it has passed all that holds it back."""
        for flow in sequence.flows[sequence.passed :]:
            if flow.past >= flow.most():
                heapq.heappush(flow.waiting, (sequence.rank, sequence.number, sequence))
                return False
            flow.past += 1
            sequence.passed += 1
        waited_s = self._clock() - sequence.came
        sequence.trail.held_s = max(sequence.trail.held_s, waited_s)
        return True

    def _go_on(self, flow: _Flow) -> None:
        while flow.waiting and (flow.waiting[0][2].gone or flow.past < flow.most()):
            sequence = heapq.heappop(flow.waiting)[2]
            if not sequence.gone and self._advance(sequence):
                task = asyncio.create_task(self._enter_late(sequence))
                self._entering.add(task)
                task.add_done_callback(self._entering.discard)

    async def _enter_late(self, sequence: _Sequence) -> None:
        if sequence.gone:
            return
        sequence.entered = True
        try:
            await self._enter(sequence.request)
        except Exception as error:
            # Handed to the request, which waits for its outputs.
            self.ended(sequence.request.request_id)
            self._fail(sequence.request.request_id, error)
