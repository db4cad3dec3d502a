"""Checked numbers of a model's `config.json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scheduler.errors import ModelCardError

MOST = 10**9


class Fields:
    """Numbers of a configuration, checked.

    Args:
        config: The part of the file that describes the language model.
        dtype: Of the engine; empty where only the file is known.
    """

    def __init__(self, config: Mapping[str, Any], dtype: str = "") -> None:
        self._config = config
        self._dtype = dtype

    def count(self, *names: str, default: int | None = None, least: int = 1) -> int:
        """The first of the names that is there, a whole number."""
        for name in names:
            value = self._config.get(name)
            if value is None:
                continue
            if type(value) is not int or not least <= value <= MOST:
                raise ModelCardError(
                    f"{name}: must be a whole number from {least} to {MOST}, got {value!r}"
                )
            return value
        if default is None:
            raise ModelCardError(f"{names[0]}: missing in config.json")
        return default

    def flag(self, name: str, default: bool) -> bool:
        """A switch, with what it is where the file is silent."""
        value = self._config.get(name)
        return default if value is None else bool(value)

    def dtype_bits(self) -> int:
        """Of the numbers that no quantization touches.

        Engines load weights that a file has in 32 bits as 16, unless they are asked otherwise.
        """
        name = self._dtype or str(
            self._config.get("dtype") or self._config.get("torch_dtype") or "bfloat16"
        )
        if "32" in name:
            return 32 if self._dtype else 16
        return 8 if "8" in name else 16

    def get(self, name: str) -> Any:
        """The value as it is, `None` where there is none."""
        return self._config.get(name)
