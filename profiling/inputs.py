"""Files that several commands read, and what they say of one that they cannot read or write."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from profiling.errors import InputError
from scheduler.costs.profiles import ProfileSet
from scheduler.errors import QualityModelError, SchedulerError
from scheduler.prompts.quality import QualityModel

T = TypeVar("T")


@contextmanager
def csv_errors(path: Path) -> Iterator[None]:
    """Give what pandas says of a file that it cannot read its name.

    Raises:
        InputError: It cannot be read, or is no CSV.
    """
    try:
        yield
    except (OSError, EOFError, ValueError) as error:
        raise InputError(f"{path}: not a readable CSV: {str(error).splitlines()[0]}") from error


@contextmanager
def write_errors(option: str, path: Path) -> Iterator[None]:
    """Give an error of writing the name of its option.

    Raises:
        InputError: Nothing can be written there.
    """
    try:
        yield
    except OSError as error:
        raise InputError(f"{option}: {path} cannot be written: {error.strerror}") from error


def numbers_in(
    path: Path,
    frame: pd.DataFrame,
    name: str,
    bounds: tuple[float, float],
    *,
    empty: bool = False,
) -> pd.Series[float]:
    """A column of text as numbers within bounds.

    Args:
        path: Where the frame comes from.
        frame: All columns as text.
        name: Of the column.
        bounds: The least and the most, both included.
        empty: Empty values are allowed; they are NaN.

    Raises:
        InputError: With the first row that has another value.
    """
    values = pd.to_numeric(frame[name], errors="coerce").astype(np.float64)
    wrong = ~values.between(*bounds)
    if empty:
        wrong &= frame[name].str.strip() != ""
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise InputError(
            f"{path}: row {row + 1}: {name} must be in {bounds[0]:g}..{bounds[1]:g}, "
            f"got {frame[name].iloc[row][:40]!r}"
        )
    return values


def read_text(path: Path) -> str:
    """The text of a file in UTF-8, without a byte order mark.

    Raises:
        InputError: It cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error


def read_log(path: Path, parse: Callable[[dict[str, Any]], T]) -> Iterator[T]:
    """What `parse` makes of each decision of a log, in its order.

    A last line without an end is left out: it may just be being written.

    Raises:
        InputError: The file cannot be read, or a line is not a decision.
    """
    for number, line in enumerate(read_text(path).split("\n")[:-1], start=1):
        try:
            parsed = parse(json.loads(line))
        except (KeyError, TypeError, ValueError, RecursionError, SchedulerError) as error:
            fault = f"{type(error).__name__}: {error}"
            raise InputError(f"{path}: line {number} is not a decision ({fault})") from error
        yield parsed


def read_profile_set(path: Path) -> ProfileSet:
    """Read a profile set file.

    Raises:
        InputError: The file cannot be read.
        ProfileError: Its content is broken.
    """
    return ProfileSet.from_json(read_text(path))


def read_quality_model(path: Path) -> QualityModel:
    """Read a file.

    Raises:
        InputError: It cannot be read, or is no quality model that this program understands.
    """
    try:
        return QualityModel.from_bytes(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except QualityModelError as error:
        raise InputError(f"{path}: {error}") from error
