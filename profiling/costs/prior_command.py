"""The subcommand `prior`: a model card and a data sheet to a profile, offline."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from rich.console import Console

from cluster.files import write_atomic
from profiling.costs.report import print_profiles
from profiling.errors import InputError
from scheduler.costs.priors.accelerators import AcceleratorTable
from scheduler.costs.priors.model_card import ModelCard
from scheduler.costs.priors.prior import card_profile
from scheduler.costs.profiles import ModelProfile, ProfileSet
from scheduler.errors import ModelCardError

# What a usual request is here: input tokens, output tokens, and requests side by side.
EXAMPLES = ((250, 250, 1), (250, 250, 8), (250, 250, 64), (2000, 500, 8))
MOST_DEVICES = 1024


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m profiling prior`."""
    add = parser.add_argument
    add("--config", type=Path, required=True, metavar="FILE", help="the model's config.json")
    add("--accelerator", required=True, metavar="NAME", help="kind of device, such as H100")
    add(
        "--tensor-parallel",
        type=int,
        default=1,
        metavar="N",
        help="devices that share the weights (default: %(default)s)",
    )
    add(
        "--cache-bits",
        type=int,
        choices=(8, 16),
        help="width of the numbers in the cache (default: the model's own)",
    )
    add("--model", metavar="ID", help="the model's id (default: what the file or folder says)")
    add("--output", type=Path, metavar="FILE", help="write a profile set there")
    add("--json", action="store_true", help="print the profile set instead of tables")


def run(args: argparse.Namespace) -> int:
    """Compute, write and print.

    Returns:
        0.

    Raises:
        InputError: The file cannot be read or gives no prior; the message names the field.
    """
    devices = args.tensor_parallel
    if not 1 <= devices <= MOST_DEVICES:
        # Python prints no numbers of thousands of digits.
        got = f", got {devices}" if abs(devices) < 10**9 else ""
        raise InputError(f"--tensor-parallel: must be from 1 to {MOST_DEVICES}{got}")
    try:
        accelerator = AcceleratorTable.shipped().find_whole(args.accelerator)
    except ModelCardError as error:
        message = str(error).removeprefix("accelerator: ")
        raise InputError(f"--accelerator: {message}") from error
    config = _read(args.config)
    named = str(config.get("_name_or_path") or args.config.resolve().parent.name)
    model = args.model or named
    try:
        card = ModelCard.from_config(config, args.cache_bits)
        profile = card_profile(model, card, accelerator, devices)
    except ModelCardError as error:
        raise InputError(f"{args.config}: {error}") from error
    profiles = ProfileSet((profile,), source=profile.source)
    if args.output is not None:
        try:
            write_atomic(args.output, profiles.to_json())
        except OSError as error:
            raise InputError(f"--output: {args.output} cannot be written: {error}") from error
    if args.json:
        print(profiles.to_json(), end="")
        return 0
    console = Console(markup=False, emoji=False)
    console.print(
        f"{card.parameters / 1e9:.3g} billion parameters, {card.activated / 1e9:.3g} of them for "
        f"a token; {card.weight_bytes * 8:.3g} bits a weight; {card.cache_bytes / 1e3:.3g} kB of "
        "cache a token",
        highlight=False,
    )
    if accelerator.note:
        console.print(accelerator.note, style="yellow", highlight=False)
    print_profiles(profiles, console)
    _print_examples(profile, console)
    if args.output is not None:
        console.print(f"written to {args.output}", highlight=False)
    return 0


def _print_examples(profile: ModelProfile, console: Console) -> None:
    for tin, tout, c in EXAMPLES:
        runtime, energy = profile.runtime, profile.energy
        console.print(
            f"{tin} tokens in, {tout} out, {c} side by side: "
            f"{runtime.predict(tin, tout, c):.3g} s, {energy.predict(tin, tout, c):.3g} J "
            f"(90 %: times {runtime.ratio_low:.2f} to {runtime.ratio_high:.2f})",
            highlight=False,
        )


def _read(path: Path) -> dict[str, object]:
    try:
        config = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"--config: {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"--config: {path} is not JSON: {error}") from error
    except RecursionError as error:
        raise InputError(f"--config: {path} is nested too deeply") from error
    if not isinstance(config, dict):
        raise InputError(f"--config: {path}: must be a JSON object")
    return config
