"""Files that several commands read."""

from __future__ import annotations

from pathlib import Path

from profiling.errors import InputError
from scheduler.costs.profiles import ProfileSet
from scheduler.errors import QualityModelError
from scheduler.prompts.quality import QualityModel


def read_profile_set(path: Path) -> ProfileSet:
    """Read a profile set file.

    Raises:
        InputError: The file cannot be read.
        ProfileError: Its content is broken.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    return ProfileSet.from_json(text)


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
