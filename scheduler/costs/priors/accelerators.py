"""The table of accelerators: data sheets, and the efficiencies that engines reach of them.

The table is `scheduler/data/accelerators.json`, with a source for each figure; this reads its text.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from difflib import SequenceMatcher
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

from scheduler.costs.priors.prior import Accelerator, Efficiencies
from scheduler.errors import ModelCardError

TABLE_FILE: Traversable = files("scheduler") / "data" / "accelerators.json"
# Added to the spread where another accelerator's figures are used.
GUESSED_SPREAD = 0.7


@dataclass(frozen=True, slots=True)
class AcceleratorTable:
    """Accelerators by name.

    Attributes:
        accelerators: In the order of the file.
        patterns: For each of them, the words that a device's name has; the longest match counts.
    """

    accelerators: tuple[Accelerator, ...]
    patterns: Mapping[str, tuple[str, ...]]

    def find_whole(self, name: str) -> Accelerator:
        """The same, for a prior: of one whole device.

        Raises:
            ModelCardError: The name is empty, or one of several devices or of a MIG slice.
        """
        if re.match(r"\s*\d+\s*[x×*]\s*\D", name, re.IGNORECASE):
            raise ModelCardError(
                f"accelerator: must be one device, got {name!r}; the tensor parallel degree is "
                "given apart from it"
            )
        if "mig" in _plain(name).split():
            raise ModelCardError(
                f"accelerator: {name!r} is a MIG slice, and only whole devices have a prior"
            )
        return self.find(name)

    def find(self, name: str) -> Accelerator:
        """The accelerator that a driver or a user calls so.

        One that is not in the table gets the figures of the one with the most similar name, a
        wider spread, and a note that says so.

        Raises:
            ModelCardError: The name is empty.
        """
        asked = _plain(name)
        if not asked:
            raise ModelCardError(f"accelerator: must be a name, got {name!r}")
        best: tuple[int, Accelerator] | None = None
        for accelerator in self.accelerators:
            for pattern in self.patterns[accelerator.name]:
                found = f" {_plain(pattern)} " in f" {asked} "
                if found and (best is None or len(pattern) > best[0]):
                    best = len(pattern), accelerator
        if best is not None:
            return best[1]
        nearest = max(self.accelerators, key=lambda a: self._likeness(asked, a))
        reached = nearest.efficiencies
        note = (
            f"accelerator {name!r} is not in the table; the figures of {nearest.name!r}, the "
            "nearest by name, are used"
        )
        return replace(
            nearest,
            note=f"{note}; {nearest.note}" if nearest.note else note,
            efficiencies=replace(
                reached,
                runtime_spread=math.hypot(reached.runtime_spread, GUESSED_SPREAD),
                energy_spread=math.hypot(reached.energy_spread, GUESSED_SPREAD),
            ),
        )

    def _likeness(self, asked: str, accelerator: Accelerator) -> float:
        names = (accelerator.name, *self.patterns[accelerator.name])
        return max(SequenceMatcher(None, asked, _plain(other)).ratio() for other in names)

    @classmethod
    def from_json(cls, text: str) -> AcceleratorTable:
        """Read the table.

        Raises:
            ModelCardError: With the entry and the field that is wrong.
        """
        try:
            data = json.loads(text)
            reached = {n: _efficiencies(n, e) for n, e in data["efficiencies"].items()}
            entries = {n: _accelerator(n, e, reached) for n, e in data["accelerators"].items()}
            patterns = {n: tuple(e["match"]) for n, e in data["accelerators"].items()}
        except KeyError as error:
            raise ModelCardError(f"accelerators: {error.args[0]}: missing") from error
        except (AttributeError, TypeError, ValueError) as error:
            raise ModelCardError(f"accelerators: malformed: {error}") from error
        if not entries:
            raise ModelCardError("accelerators: the table is empty")
        return cls(tuple(entries.values()), patterns)

    @classmethod
    def shipped(cls) -> AcceleratorTable:
        """The table of this package."""
        return cls.from_json(TABLE_FILE.read_text(encoding="utf-8"))


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", " ", name.lower()).strip()


def _number(entry: str, data: Mapping[str, Any], name: str, least: float = 0.0) -> float:
    value = data[name]
    if type(value) not in (int, float) or not least <= value < math.inf:
        raise ModelCardError(f"accelerators: {entry}: {name}: must be a number, got {value!r}")
    return float(value)


def _efficiencies(name: str, data: Mapping[str, Any]) -> Efficiencies:
    return Efficiencies(**{f.name: _number(name, data, f.name) for f in fields(Efficiencies)})


def _accelerator(
    name: str, data: Mapping[str, Any], reached: Mapping[str, Efficiencies]
) -> Accelerator:
    flops = {int(bits): float(value) * 1e12 for bits, value in data["teraflops"].items()}
    if not flops or min(flops.values()) <= 0:
        raise ModelCardError(f"accelerators: {name}: teraflops: must be above 0, got {flops!r}")
    return Accelerator(
        name=name,
        bandwidth=_number(name, data, "bandwidth_gb_per_s", least=1e-9) * 1e9,
        flops=flops,
        idle_w=_number(name, data, "idle_watts"),
        board_w=_number(name, data, "board_watts", least=1e-9),
        efficiencies=reached[data["efficiencies"]],
        note=data.get("note", ""),
    )
