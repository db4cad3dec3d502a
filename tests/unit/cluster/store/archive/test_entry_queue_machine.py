"""The queue of decisions under any order of what a writer and a failing disk do."""

from __future__ import annotations

from itertools import count

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from cluster.store.archive.entries import OVERHEAD_BYTES, Entry, EntryQueue

MAX_BYTES = 5 * (OVERHEAD_BYTES + 100)


class QueueMachine(RuleBasedStateMachine):
    """One queue, and the batches that are being written.

    Attributes:
        kept: What the queue has to have, oldest first.
        writing: Batches that were taken, in the order in which that was.
        written: What reached the disk, in this order.
        dropped: How many never will.
    """

    def __init__(self) -> None:
        super().__init__()
        self.numbers = count()
        self.queue = EntryQueue(MAX_BYTES)
        self.kept: list[Entry] = []
        self.writing: list[Entry] = []
        self.written: list[Entry] = []
        self.dropped = 0

    @rule(sizes=st.lists(st.integers(0, 2 * MAX_BYTES), max_size=4))
    def add(self, sizes: list[int]) -> None:
        """Decisions of any size, one larger than the queue among them."""
        entries = [Entry(f"d{next(self.numbers)}", 0.0, "x" * size) for size in sizes]
        self.queue.add(iter(entries))
        self.kept += entries
        self.drop()

    @rule(limit=st.none() | st.integers(1, 4))
    def take(self, limit: int | None) -> None:
        """The writer takes the oldest, one batch at a time."""
        if not self.writing:
            self.writing = self.queue.take(limit)
            cut = len(self.kept) if limit is None else limit
            assert self.writing == self.kept[:cut]
            del self.kept[:cut]

    @rule()
    def succeed(self) -> None:
        """The disk takes the batch."""
        self.written += self.writing
        self.writing = []

    @rule()
    def fail(self) -> None:
        """The disk refuses it."""
        self.queue.give_back(self.writing)
        self.kept, self.writing = self.writing + self.kept, []
        self.drop()

    def drop(self) -> None:
        """The oldest go until the rest fits."""
        while sum(entry.size for entry in self.kept) > MAX_BYTES:
            del self.kept[0]
            self.dropped += 1

    @invariant()
    def is_what_it_has_to_be(self) -> None:
        """In order, whole, and within its bounds."""
        assert list(self.queue) == self.kept == list(reversed(self.queue))[::-1]
        assert len(self.queue) == len(self.kept)
        assert self.queue.dropped == self.dropped

    @invariant()
    def writes_in_order_and_once(self) -> None:
        """What reached the disk did so in the order in which it came."""
        numbers = [int(entry.decision_id[1:]) for entry in self.written]
        assert numbers == sorted(set(numbers))


TestQueue = QueueMachine.TestCase
TestQueue.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
