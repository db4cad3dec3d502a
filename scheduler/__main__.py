"""`python -m scheduler`: a decision, offline, from saved profiles.

Reads files and prints; everything it shows is computed by the pure modules next to it.
Exit codes: 0 decided, 2 bad input, which is named in one line on standard error.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from rich.console import Console

from scheduler.arguments import OneLineParser, number, whole_number
from scheduler.console import render_decision
from scheduler.costs.priors.library import LIBRARY, library_for, shipped_library
from scheduler.costs.profiles import ProfileSet
from scheduler.decide import Scheduler
from scheduler.errors import ProfileError, QualityModelError, SchedulerError
from scheduler.policies import POLICIES
from scheduler.preferences import Weights
from scheduler.prompts.quality import EstimatedBy, QualityModel
from scheduler.prompts.task_model import TaskModel
from scheduler.prompts.tasks import SHIPPED_MODEL, classify
from scheduler.prompts.tokens import estimate_tokens
from scheduler.serialization import decision_to_dict
from scheduler.types import ClusterState, ModelState, RoutingRequest


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the arguments of the process where none are given."""
    parser = _build_parser()
    options = parser.parse_args(argv)
    if options.prompt is None and options.input_tokens is None:
        parser.error("one of --prompt and --input_tokens is required")
    try:
        profiles = _read_profiles(options.profiles)
        decision = Scheduler().decide(
            _request(options, profiles), _state(profiles, options.concurrency)
        )
    except SchedulerError as error:
        parser.error(str(error))
    if options.json:
        print(json.dumps(decision_to_dict(decision), indent=2))
    else:
        Console(markup=False, emoji=False).print(render_decision(decision, profiles))
    return 0


def _build_parser() -> argparse.ArgumentParser:
    tokens = whole_number(1, 999_999_999)
    parser = OneLineParser(
        prog="python -m scheduler",
        description="Which model would get this prompt, and what would it cost? Nothing is sent.",
        epilog="Options can be written with hyphens too: --weight-accuracy.",
        allow_abbrev=False,
    )

    def add(name: str, **settings: object) -> None:
        hyphens = name.replace("_", "-")
        names = [f"--{name}"] if hyphens == name else [f"--{name}", f"--{hyphens}"]
        parser.add_argument(*names, **settings)  # type: ignore[arg-type]

    add("prompt", help="the prompt; its tokens are estimated from its length")
    for metric in ("accuracy", "energy", "time"):
        add(
            f"weight_{metric}", type=float, help="only ratios count; all 1 if none is given, else 0"
        )
    add("input_tokens", type=tokens, metavar="N", help="prompt tokens, instead of the estimate")
    add("output_tokens", type=tokens, metavar="N", help="tokens to generate, where known")
    add("max_tokens", type=tokens, metavar="N", help="upper bound of the tokens to generate")
    add("policy", default="weighted", help=f"one of {', '.join(POLICIES)}; default weighted")
    add("models", metavar="A,B", help="the only models to consider")
    add(
        "profiles",
        metavar="FILE",
        help="profile set, or library:h100 for public measurements; default: the one shipped",
    )
    add(
        "concurrency",
        type=number(1, 1_000_000),
        default=1.0,
        metavar="N",
        help="requests side by side on each model, this one included; default 1",
    )
    add("quality", type=Path, metavar="FILE", help="quality model: accuracies for this prompt")
    add("json", action="store_true", help="print the decision as JSON")
    return parser


def _read_profiles(name: str | None) -> ProfileSet:
    if name is not None and name.split(":")[0] == LIBRARY and not Path(name).exists():
        accelerator = name.removeprefix(LIBRARY).removeprefix(":")
        return library_for(shipped_library(), accelerator)
    source = Path(name) if name else files("scheduler") / "data" / "default_profiles.json"
    try:
        return ProfileSet.from_json(source.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ProfileError(f"profiles: cannot read {source}: {error.strerror}") from error
    except (UnicodeDecodeError, ProfileError) as error:
        raise ProfileError(f"profiles: {source}: {error}") from error


def _read_quality(path: Path) -> QualityModel:
    try:
        return QualityModel.from_bytes(path.read_bytes())
    except OSError as error:
        raise QualityModelError(f"quality: cannot read {path}: {error.strerror}") from error
    except QualityModelError as error:
        raise QualityModelError(f"quality: {path}: {error}") from error


def _request(options: argparse.Namespace, profiles: ProfileSet) -> RoutingRequest:
    tokens = options.input_tokens or estimate_tokens(options.prompt)
    models = frozenset(profile.model for profile in profiles.profiles)
    prompt = options.prompt or ""
    quality = _read_quality(options.quality) if options.quality else None
    return RoutingRequest(
        decision_id="offline",
        input_tokens=dict.fromkeys(models, tokens),
        estimated_inputs=frozenset() if options.input_tokens else models,
        max_tokens=options.max_tokens,
        output_tokens=options.output_tokens,
        weights=_weights(options),
        policy=options.policy,
        models=None if options.models is None else tuple(options.models.split(",")),
        task=classify(prompt, TaskModel.from_bytes(SHIPPED_MODEL.read_bytes())),
        quality=quality.estimate(prompt) if quality else {},
        reports={EstimatedBy.name: EstimatedBy(quality.version)} if quality else {},
    )


def _weights(options: argparse.Namespace) -> Weights:
    # As over HTTP: who names some costs does not care for the others.
    given = [options.weight_accuracy, options.weight_energy, options.weight_time]
    if all(weight is None for weight in given):
        return Weights()
    return Weights(*(0.0 if weight is None else weight for weight in given))


def _state(profiles: ProfileSet, concurrency: float) -> ClusterState:
    # A model that was profiled on several accelerators takes part once, with its first profile.
    first = {profile.model: profile for profile in reversed(profiles.profiles)}
    names = dict.fromkeys(profile.model for profile in profiles.profiles)
    return ClusterState(
        models=tuple(
            ModelState(name, profile=first[name], ongoing=concurrency - 1) for name in names
        ),
        profile_version=profiles.version,
        reference=profiles.reference,
    )


if __name__ == "__main__":
    sys.exit(main())
