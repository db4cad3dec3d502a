"""Raw profiles: one row a trial, appended as it is measured, read back for the fit.

The writer loses at most the row that was being written when the machine went down. The reader
takes other people's CSV files as well, and leaves out what cannot be true, counted by reason.
"""

from __future__ import annotations

import csv
import io
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import pandas as pd

from profiling.errors import InputError
from profiling.inputs import csv_errors


class TrialKey(NamedTuple):
    """What was measured, regardless of when and where; repeats share a key."""

    model: str
    accelerator: str
    concurrency: float
    input_tokens: int
    output_tokens: int


class TrialCosts(NamedTuple):
    """What one trial took; the energy is `None` where the counter failed."""

    runtime_s: float
    energy_joules: float | None


@dataclass(frozen=True, slots=True)
class Trial:
    """One measurement of one configuration.

    Attributes:
        accelerator: Kind of device, as the replica reports it.
        concurrency: Equal requests that ran side by side on the replica; an average where their
            number changed.
        output_tokens: Generated tokens only.
        cached_input_tokens: Prompt tokens that came from the prefix cache.
        ttft_s: To the first token, `None` where the replica did not stream.
        runtime_s: End to end, in the replica.
        energy_joules: Of one request, its share of what ran with it; `None` where the counter
            failed during the trial.
        energy_source: `nvml`, `nvml_power`, `rapl` or `cpu_time`.
        started_at: Unix time in seconds.
    """

    run_id: str
    model: str
    accelerator: str
    node_id: str
    replica_id: str
    concurrency: float
    input_tokens: int
    output_tokens: int
    cached_input_tokens: int
    queue_time_s: float
    ttft_s: float | None
    runtime_s: float
    energy_joules: float | None
    energy_source: str
    started_at: float

    @property
    def key(self) -> TrialKey:
        """The configuration that this trial measured."""
        return TrialKey(*(getattr(self, name) for name in TrialKey._fields))

    @property
    def costs(self) -> TrialCosts:
        """What it took."""
        return TrialCosts(self.runtime_s, self.energy_joules)


COLUMNS = tuple(field.name for field in fields(Trial))
REQUIRED = ("model", "input_tokens", "output_tokens", "runtime_s", "energy_joules")
WORDS = ("run_id", "model", "accelerator")
# No request has more tokens or neighbours than this, nor seconds or joules outside of these.
MOST_TOKENS = 10**9
LEAST_COST, MOST_COST = 1e-9, 1e9

# Only names whose unit is beyond doubt: a bare `runtime` may be milliseconds.
SYNONYMS: Mapping[str, str] = {
    "model_id": "model",
    "model_name": "model",
    "llm": "model",
    "prompt_tokens": "input_tokens",
    "tokens_in": "input_tokens",
    "num_input_tokens": "input_tokens",
    "completion_tokens": "output_tokens",
    "generated_tokens": "output_tokens",
    "tokens_out": "output_tokens",
    "num_output_tokens": "output_tokens",
    "runtime_seconds": "runtime_s",
    "runtime_sec": "runtime_s",
    "latency_s": "runtime_s",
    "latency_seconds": "runtime_s",
    "duration_s": "runtime_s",
    "e2e_s": "runtime_s",
    "energy_j": "energy_joules",
    "joules": "energy_joules",
    "gpu": "accelerator",
    "gpu_name": "accelerator",
    "device": "accelerator",
    "ttft_seconds": "ttft_s",
    "num_concurrent": "concurrency",
}


class TrialLog:
    """The append-only file of one run.

    Opening an existing file resumes it: a last line that was cut off by a crash is dropped.

    Raises:
        InputError: The file exists and is not a raw profile of this version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+b")
        try:
            self._costs = self._recover()
        except BaseException:
            self._file.close()
            raise

    @classmethod
    def of_run(cls, data_dir: Path, run_id: str) -> Self:
        """The log of a run under the data folder."""
        return cls(data_dir / "raw_profiles" / f"{run_id}.csv")

    def append(self, *trials: Trial) -> None:
        """Write trials and wait until they are on the disk."""
        self._write(asdict(trial).values() for trial in trials)
        for trial in trials:
            self._costs[trial.key].append(trial.costs)

    def done(self) -> Counter[TrialKey]:
        """How many finished trials there are of each configuration."""
        return Counter({key: len(costs) for key, costs in self._costs.items()})

    def costs(self) -> dict[TrialKey, list[TrialCosts]]:
        """What the finished trials of each configuration cost, the first one first."""
        return {key: list(costs) for key, costs in self._costs.items()}

    def close(self) -> None:
        """Close the file; every appended trial is already safe."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _recover(self) -> defaultdict[TrialKey, list[TrialCosts]]:
        self._file.seek(0)
        content = self._file.read()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            self._file.truncate(len(whole))
        if not whole:
            self._write([COLUMNS])
            return defaultdict(list)
        rows = csv.DictReader(io.StringIO(whole.decode("utf-8")))
        if tuple(rows.fieldnames or ()) != COLUMNS:
            raise InputError(
                f"{self.path}: not a raw profile of this version, its columns are "
                f"{', '.join(rows.fieldnames or ())}"
            )
        found: defaultdict[TrialKey, list[TrialCosts]] = defaultdict(list)
        for row in rows:
            key = TrialKey(
                row["model"],
                row["accelerator"],
                float(row["concurrency"]),
                int(row["input_tokens"]),
                int(row["output_tokens"]),
            )
            joules = row["energy_joules"]
            found[key].append(
                TrialCosts(float(row["runtime_s"]), float(joules) if joules else None)
            )
        return found

    def _write(self, rows: Iterable[Iterable[object]]) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        self._file.write(text.getvalue().encode("utf-8"))
        self._file.flush()
        os.fsync(self._file.fileno())


@dataclass(frozen=True, slots=True)
class Cleaning:
    """What reading left out.

    Attributes:
        total: Rows in the files.
        reasons: Rows left out by reason; a row counts once, under its first fault.
    """

    total: int
    reasons: Mapping[str, int]

    @property
    def kept(self) -> int:
        """Rows that remain."""
        return self.total - sum(self.reasons.values())

    def __str__(self) -> str:
        if not self.reasons:
            return f"{self.total} rows"
        faults = ", ".join(f"{count} {reason}" for reason, count in self.reasons.items())
        return f"{self.kept} of {self.total} rows; left out: {faults}"


def read_trials(
    path: Path, *, accelerator: str = "unknown", energy_source: str = "unknown"
) -> tuple[pd.DataFrame, Cleaning]:
    """Read raw profiles, from this project or with other names for the same columns.

    Args:
        path: A `.csv` or `.csv.gz` file, a folder of such files, or a pipe of plain CSV.
        accelerator: Kind of device of the rows that do not say.
        energy_source: Where the energy of the rows comes from that do not say.

    Returns:
        The usable rows, with at least the columns `REQUIRED`, `accelerator`, `energy_source` and
        `concurrency` (1 where the file does not say), and what was left out.

    Raises:
        InputError: No such file, not a CSV, a column is missing, or no usable row.
    """
    frame = pd.concat([_read_file(file) for file in _files(path)], ignore_index=True)
    defaults = {"accelerator": accelerator, "energy_source": energy_source, "concurrency": 1}
    for column, value in defaults.items():
        known = frame[column] if column in frame else pd.Series(pd.NA, index=frame.index)
        frame[column] = known.astype(object).where(known.notna(), value)
    frame, cleaning = _clean(frame)
    if not cleaning.kept:
        raise InputError(f"{path}: no usable row ({cleaning})")
    return frame, cleaning


def _files(path: Path) -> list[Path]:
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    if not path.is_dir():
        return [path]
    found = sorted([*path.glob("*.csv"), *path.glob("*.csv.gz")])
    if not found:
        raise InputError(f"{path}: no .csv or .csv.gz file in this folder")
    return found


def _read_file(path: Path) -> pd.DataFrame:
    with csv_errors(path):
        # Apart, because pandas gives the second of two equal names another name.
        source = _twice(path)
        titles = pd.read_csv(source(), header=None, nrows=1, dtype=str, keep_default_na=False)
        header = titles.iloc[0]
        names = [_column(title) for title in header]
        words = {title: str for title, name in zip(header, names, strict=True) if name in WORDS}
        frame = pd.read_csv(source(), dtype=words)
    there = ", ".join(header)
    if not isinstance(frame.index, pd.RangeIndex):
        raise InputError(f"{path}: the rows have more fields than the header; there are: {there}")
    columns: dict[str, pd.Series[Any]] = {}
    for position, name in enumerate(names):
        values = frame.iloc[:, position]
        # An exact copy does no harm; of two that differ it is unknown which one is right.
        if name in COLUMNS and not columns.setdefault(name, values).equals(values):
            raise InputError(f"{path}: two columns mean {name!r} and differ; there are: {there}")
        columns[name] = values
    for name in REQUIRED:
        if name not in columns:
            raise InputError(f"{path}: column {name!r} is missing; there are: {there}")
    return pd.DataFrame(columns)


def _twice(path: Path) -> Callable[[], Path | io.BytesIO]:
    """What to read again and again: the file, or the content of a pipe, which is read once."""
    if path.is_file():
        return lambda: path
    content = path.read_bytes()
    return lambda: io.BytesIO(content)


def _column(title: str) -> str:
    plain = title.strip().lower()
    return SYNONYMS.get(plain, plain)


def _clean(frame: pd.DataFrame) -> tuple[pd.DataFrame, Cleaning]:
    counts = ["input_tokens", "output_tokens", "concurrency"]
    costs = ["runtime_s", "energy_joules"]
    for name in {*counts, *costs, "cached_input_tokens", "queue_time_s", "ttft_s"} & set(frame):
        frame[name] = pd.to_numeric(frame[name], errors="coerce").astype(float)
    absent = pd.Series(np.nan, index=frame.index)

    faults: dict[str, pd.Series[bool]] = {}
    if "started_at" in frame:
        faults["cut off before started_at"] = frame["started_at"].isna()
    faults["without model"] = frame["model"].isna()
    for name in (*counts, *costs):
        faults[f"without a number in {name}"] = frame[name].isna()
        faults[f"with an infinite {name}"] = np.isinf(frame[name])
    # An average batch is no whole number of requests.
    tokens = counts[:2]
    for name in tokens:
        faults[f"with {name} that is not a whole number above 0"] = (frame[name] < 1) | (
            frame[name] % 1 != 0
        )
    faults["with concurrency below 1"] = frame["concurrency"] < 1
    for name in counts:
        faults[f"with {name} above {MOST_TOKENS:,}"] = frame[name] > MOST_TOKENS
    for name in costs:
        faults[f"with {name} not above 0"] = frame[name] <= 0
        possible = frame[name].between(LEAST_COST, MOST_COST)
        faults[f"with {name} outside {LEAST_COST:g}..{MOST_COST:g}"] = ~possible
    for name in ("ttft_s", "queue_time_s"):
        value = frame.get(name, absent)
        faults[f"with {name} outside 0..runtime_s"] = (value < 0) | (value > frame["runtime_s"])
    cached = frame.get("cached_input_tokens", absent)
    faults["with cached_input_tokens outside 0..input_tokens"] = (cached < 0) | (
        cached > frame["input_tokens"]
    )

    reasons: dict[str, int] = {}
    usable = pd.Series(True, index=frame.index)
    for reason, wrong in faults.items():
        if count := int((usable & wrong).sum()):
            reasons[reason] = count
        usable &= ~wrong
    kept = frame[usable].reset_index(drop=True)
    return kept.astype(dict.fromkeys(tokens, int)), Cleaning(len(frame), reasons)
