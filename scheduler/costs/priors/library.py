"""Profiles that ship, fitted on public measurements: by model and accelerator.

`scheduler/data/library.json` is a profile set whose accelerators carry the number of devices where
there are several: `2 x H100`. It holds fitted coefficients, no measurement.
"""

from __future__ import annotations

import re
from dataclasses import replace
from importlib.resources import files
from importlib.resources.abc import Traversable

from scheduler.costs.priors.accelerators import AcceleratorTable
from scheduler.costs.profiles import ModelProfile, ProfileSet
from scheduler.errors import ModelCardError, ProfileError

LIBRARY_FILE: Traversable = files("scheduler") / "data" / "library.json"
LIBRARY = "library"


def shipped_library() -> ProfileSet:
    """The whole library."""
    return ProfileSet.from_json(LIBRARY_FILE.read_text(encoding="utf-8"))


def library_for(library: ProfileSet, accelerator: str) -> ProfileSet:
    """The profiles on one accelerator, each model once, with its fewest devices.

    Args:
        library: All of it.
        accelerator: `h100`, or `2 x h100` for those on so many devices only.

    Raises:
        ProfileError: There is none; the message names those that there are.
    """
    asked_devices, asked = _split(accelerator)
    found: dict[str, tuple[int, ModelProfile]] = {}
    for profile in library.profiles:
        devices, name = _split(profile.accelerator)
        fits = name.lower() == asked.lower() and asked_devices in (None, devices or 1)
        known = found.get(profile.model)
        if fits and (known is None or (devices or 1) < known[0]):
            found[profile.model] = devices or 1, profile
    if not found:
        names = sorted({_split(p.accelerator)[1] for p in library.profiles})
        raise ProfileError(
            f"profiles: the library has nothing for {accelerator!r}, only for {', '.join(names)}"
        )
    return replace(library, profiles=tuple(profile for _, profile in found.values()))


def library_profile(
    library: ProfileSet, source: str, accelerator: str, devices: int = 1
) -> ModelProfile | None:
    """The entry of a model's source on a device that a driver calls so, `None` without one.

    Args:
        library: All of it.
        source: Repository that the weights come from, `Qwen/Qwen3-8B`.
        accelerator: As a replica reports it, `NVIDIA H100 80GB HBM3`.
        devices: Tensor parallel degree.
    """
    try:
        device = AcceleratorTable.shipped().find_whole(accelerator)
    except ModelCardError:
        return None
    if " is not in the table" in device.note:
        return None
    for profile in library.profiles:
        number, name = _split(profile.accelerator)
        if profile.model == source and name == device.name and (number or 1) == devices:
            return profile
    return None


def _split(accelerator: str) -> tuple[int | None, str]:
    match = re.fullmatch(r"\s*(\d+)\s*x\s+(.+?)\s*", accelerator)
    return (int(match[1]), match[2]) if match else (None, accelerator.strip())
