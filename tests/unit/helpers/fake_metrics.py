"""Ray's instruments of metrics, exchanged for recording ones."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from deployments.router.observe.metrics import PREFIX

Labels = tuple[tuple[str, str], ...]


class Instrument:
    """Remembers values by labels, and insists on those that it was made with."""

    def __init__(self, name: str, description: str, tag_keys: tuple[str, ...], **_: Any) -> None:
        self.name, self.description, self.keys = name, description, tag_keys
        self.values: defaultdict[Labels, list[float]] = defaultdict(list)

    def record(self, value: float, tags: dict[str, str]) -> None:
        assert set(tags) == set(self.keys)
        assert all(isinstance(tag, str) for tag in tags.values())
        self.values[tuple(sorted(tags.items()))].append(value)

    inc = observe = set = record


class Library:
    """In the place of `ray.serve.metrics`."""

    def __init__(self) -> None:
        self.made: dict[str, Instrument] = {}

    def Counter(self, *args: Any, **kwargs: Any) -> Instrument:  # noqa: N802
        instrument = Instrument(*args, **kwargs)
        return self.made.setdefault(instrument.name, instrument)

    Histogram = Gauge = Counter

    def __getitem__(self, name: str) -> dict[Labels, list[float]]:
        return dict(self.made[PREFIX + name].values)


def labels(**values: str) -> Labels:
    return tuple(sorted(values.items()))
