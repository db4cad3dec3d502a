"""Who used the joules: a counter's readings, split between the requests that share the device.

The split is equal over the requests that are active at a time, whatever they do. It is exact in
total: every joule goes to a request or to idle time. There is no clock here but the counter.
"""

from __future__ import annotations

from collections.abc import Hashable

from cluster.accelerators import EnergyCounter


class RequestLedger:
    """Splits one counter between concurrent requests.

    At every event the counter's difference since the event before is split equally over the
    requests that were active in between, or kept as idle where there was none:
    `attributed_joules + pending_joules + idle_joules` is what the counter went up since
    construction, as of the last event.

    Not thread-safe: one event loop owns it. Errors of the counter pass through and leave the
    ledger as it was.

    Attributes:
        attributed_joules: Given to requests that have ended.
        idle_joules: Drawn while no request was active.
        anomalies: How often the counter fell, plus how many requests ended with 0 joules because
            it stood still (or is too coarse for them).
    """

    def __init__(self, counter: EnergyCounter) -> None:
        self._counter = counter
        self._last = counter.read_joules()
        # Joules that a request would have got so far, had it been active all the time. What a
        # request gets is the difference between its end and its begin, so an event costs the
        # same with 1 active request and with 1,000.
        self._share = 0.0
        self._began: dict[Hashable, float] = {}
        self.attributed_joules = 0.0
        self.idle_joules = 0.0
        self.anomalies = 0

    @property
    def source(self) -> str:
        """The counter's `source`."""
        return self._counter.source

    @property
    def active(self) -> int:
        """Requests that have begun and not ended."""
        return len(self._began)

    @property
    def pending_joules(self) -> float:
        """Given so far to requests that have not ended."""
        return sum(self._share - began for began in self._began.values())

    def begin(self, key: Hashable) -> None:
        """A request starts to use the device.

        Raises:
            ValueError: A request with this key is active.
        """
        if key in self._began:
            raise ValueError(f"key: request {key!r} has already begun")
        self._settle()
        self._began[key] = self._share

    def end(self, key: Hashable) -> float:
        """A request stops using the device.

        Returns:
            Its joules, 0 or more.

        Raises:
            ValueError: No request with this key is active.
        """
        if key not in self._began:
            raise ValueError(f"key: request {key!r} has not begun")
        self._settle()
        joules = self._share - self._began.pop(key)
        if joules == 0:
            self.anomalies += 1
        if not self._began:
            # Keeps the differences exact however long the process lives.
            self._share = 0.0
        self.attributed_joules += joules
        return joules

    def _settle(self) -> None:
        """Split what the counter went up since the event before."""
        now = self._counter.read_joules()
        delta = now - self._last
        self._last = now
        if delta < 0:
            self.anomalies += 1
        elif self._began:
            self._share += delta / len(self._began)
        else:
            self.idle_joules += delta
