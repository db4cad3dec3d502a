"""Runs the steps of a visit one after the other, each with a time limit, whatever becomes of them.

Each step's figures are in a file of its own as soon as there are any, so that a visit that is cut
off leaves everything up to there. Knows neither models nor GPUs.
"""

from __future__ import annotations

import json
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Literal

Fate = Literal["done", "failed", "late", "skipped"]


class StepTimeoutError(Exception):
    """A step took longer than it has."""


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do on a visit.

    Attributes:
        name: Of its file.
        minutes: It is broken off after so long.
        what: In one line.
        run: Does it; keeps figures with the function that it is given, as often as it likes.
        needs: Steps without which it makes no sense.
    """

    name: str
    minutes: float
    what: str
    run: Callable[[Record], None]
    needs: tuple[str, ...] = ()


@dataclass(slots=True)
class Record:
    """What is known of a step, and where it is written.

    Attributes:
        path: Its file.
        figures: So far.
        left_s: Seconds that the step has left.
    """

    path: Path
    about: Mapping[str, Any]
    ends_at: float
    figures: dict[str, Any] = field(default_factory=dict)
    fate: Fate | None = None
    why: str | None = None

    @property
    def left_s(self) -> float:
        return max(self.ends_at - time.monotonic(), 0.0)

    def keep(self, **figures: Any) -> None:
        """Add figures, and write all of them."""
        self.figures |= figures
        self.write()

    def write(self) -> None:
        """Replace the file by what is known now."""
        data = {**self.about, "fate": self.fate or "running", "why": self.why, **self.figures}
        partial = self.path.with_suffix(".partial")
        partial.write_text(json.dumps(data, indent=2, default=str) + "\n")
        partial.replace(self.path)


def run_steps(
    steps: Sequence[Step],
    folder: Path,
    minutes: float,
    report: Callable[[str], None] = print,
) -> dict[str, Fate]:
    """Run them in their order.

    A step that fails is followed by the next one; one that needs it is skipped, and so is one for
    which there is no time left.

    Args:
        steps: What to do.
        folder: Takes a file of each step, and `summary.json`.
        minutes: For all of them together.
        report: Takes a line at each beginning and end.

    Returns:
        What became of each.
    """
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    end = began + 60 * minutes
    fates: dict[str, Fate] = {}
    reasons: dict[str, str] = {}
    for number, step in enumerate(steps, 1):
        at_s = time.monotonic() - began
        allowed_s = min(60 * step.minutes, end - time.monotonic())
        record = Record(
            folder / f"{number:02}-{step.name}.json",
            {"step": step.name, "what": step.what, "began_at_s": round(at_s, 1)},
            time.monotonic() + allowed_s,
        )
        missing = [name for name in step.needs if fates.get(name) != "done"]
        if missing or allowed_s < 1:
            record.fate = "skipped"
            record.why = f"needs {', '.join(missing)}" if missing else "no time is left"
        else:
            report(f"{at_s / 60:5.1f} min  {step.name}: {step.what}, at most {allowed_s:.0f} s")
            _run(step, record, allowed_s)
        record.keep(took_s=round(time.monotonic() - began - at_s, 1))
        fates[step.name] = record.fate or "done"
        if record.why:
            reasons[step.name] = record.why
        shown = f": {record.why.splitlines()[-1]}" if record.why else ""
        report(f"{(time.monotonic() - began) / 60:5.1f} min  {step.name} {record.fate}{shown}")
        summary = {"fates": fates, "reasons": reasons}
        (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    return fates


def _run(step: Step, record: Record, allowed_s: float) -> None:
    record.write()
    try:
        with time_limit(allowed_s):
            step.run(record)
        record.fate = "done"
    except StepTimeoutError as error:
        record.fate, record.why = "late", str(error)
    except Exception:
        # Whatever it is, the steps after it have their turn.
        record.fate, record.why = "failed", traceback.format_exc(limit=-6).strip()


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise in the main thread when the block takes longer.

    Raises:
        StepTimeoutError: It did.
    """

    def ring(_: int, __: FrameType | None) -> None:
        raise StepTimeoutError(f"not within {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
