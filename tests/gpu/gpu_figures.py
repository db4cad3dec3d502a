"""What the GPU tests measured, for people and as JSON.

With GPU_FIGURES=FILE in the environment the figures go to FILE, passed or failed.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pynvml
import torch
import transformers
from gpu.gpu_metering import Gpu

FIGURES_VARIABLE = "GPU_FIGURES"


class Figures:
    """What the tests measured, kept as they go, whether they pass or fail."""

    def __init__(self, gpu: Gpu, lines: list[str]) -> None:
        self._lines = lines
        self._values: dict[str, Any] = {
            "device": gpu.name,
            "memory_gib": round(gpu.memory_bytes / 2**30, 1),
            "driver": pynvml.nvmlSystemGetDriverVersion(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "date": time.strftime("%Y-%m-%d"),
        }
        lines.append(
            f"{gpu.name}, {self._values['memory_gib']} GiB, driver {self._values['driver']}, "
            f"torch {torch.__version__}, transformers {transformers.__version__}"
        )

    def record(self, name: str, values: Mapping[str, Any]) -> None:
        """Keep the figures of one test, and write all there are so far."""
        self._values[name] = values
        self._lines.append(f"{name}:")
        self._lines += [f"  {key}: {_short(value)}" for key, value in values.items()]
        if path := os.environ.get(FIGURES_VARIABLE):
            Path(path).write_text(json.dumps(self._values, indent=2) + "\n")


def _short(value: object) -> object:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_short(inner)}" for key, inner in value.items())
    return value
