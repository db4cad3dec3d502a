"""Checks of the values of a profile, whose errors name the field and the value.

Files are the reason: JSON gives text, nothing or a list where a number belongs.
"""

from __future__ import annotations

import math
import reprlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from scheduler.errors import ProfileError

_LARGEST = sys.float_info.max


def is_number(value: object) -> bool:
    """Whether it is an integer or a float, NaN included, that a float can hold."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    # An integer may be larger than any float; NaN and infinities are floats.
    return isinstance(value, float) or abs(value) <= _LARGEST


def is_finite(value: Any) -> bool:
    """Whether it is a number, and finite."""
    return is_number(value) and math.isfinite(value)


def check_text(name: str, value: object) -> None:
    """Raise a `ProfileError` unless it is text that can be written as UTF-8."""
    if not isinstance(value, str):
        raise ProfileError(f"{name}: must be text, got {reprlib.repr(value)}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ProfileError(f"{name}: must be Unicode text, got {value!a}") from error


def check_count(name: str, value: object) -> None:
    """Raise a `ProfileError` unless it is a whole number >= 0."""
    if not is_number(value) or not isinstance(value, int) or value < 0:
        raise ProfileError(f"{name}: must be a whole number >= 0, got {reprlib.repr(value)}")


def check_figure(name: str, value: object) -> None:
    """Raise a `ProfileError` unless it is a number or `None`."""
    if value is not None and not is_number(value):
        raise ProfileError(f"{name}: must be a number or null, got {reprlib.repr(value)}")


def check_amount(name: str, value: Any, most: float = _LARGEST) -> None:
    """Raise a `ProfileError` unless it is a number from 0 to `most`."""
    if not is_finite(value) or not 0 <= value <= most:
        wanted = "a finite number >= 0" if most == _LARGEST else f"in 0..{most:g}"
        raise ProfileError(f"{name}: must be {wanted}, got {reprlib.repr(value)}")


def check_range(name: str, values: Any) -> None:
    """Raise a `ProfileError` unless it is the least and the most of something, in this order."""
    fits = isinstance(values, list | tuple) and len(values) == 2 and all(map(is_finite, values))
    if not fits or not 0 <= values[0] <= values[1] or values[1] == 0:
        raise ProfileError(
            f"{name}: must be two finite numbers >= 0 in this order, the second above 0, "
            f"got {reprlib.repr(values)}"
        )


def as_tuple(name: str, value: Any) -> tuple[Any, ...]:
    """The values of a list.

    Raises:
        ProfileError: It is no list.
    """
    if not isinstance(value, list | tuple):
        raise ProfileError(f"{name}: must be a list, got {reprlib.repr(value)}")
    return tuple(value)


@contextmanager
def errors_at(place: str) -> Iterator[None]:
    """Give what is wrong with a part of the file the part's name.

    Raises:
        ProfileError: A value is wrong, missing, or of a kind that cannot be read.
    """
    try:
        yield
    except ProfileError as error:
        raise ProfileError(f"{place}.{error}") from error
    except KeyError as error:
        raise ProfileError(f"{place}.{error.args[0]}: missing") from error
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        raise ProfileError(f"{place}: malformed: {error}") from error
