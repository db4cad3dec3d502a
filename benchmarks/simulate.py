"""Do many routers with old snapshots herd onto one model, and swing between models?

    python benchmarks/simulate.py [--trace FILE] [--profiles FILE] [--quick] [--json] [--plot FILE]

Discrete events: the real scheduler and real profiles, simulated replicas and snapshots, and the
arrivals of a trace, sped up so that they fill a given share of the cluster. Without a trace, random
arrivals of the same kind. The same seed gives the same figures. Docs: docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from simulated_figure import draw_herding
from simulated_routers import Knowledge, Setting, Simulation
from simulated_traffic import Trace, random_trace, read_trace

from cluster.store.load import REPORT_PERIOD_S
from scheduler.costs.forms import ENGINE_FORMS, FORMS
from scheduler.costs.profiles import LinearModel, ModelProfile, ProfileSet
from scheduler.errors import ProfileError
from scheduler.preferences import Weights

BALANCED = Weights(1, 1, 1)
TREND_PERIODS = 9
WARM_UP = 0.3
# Long enough for many snapshots, short enough for a laptop.
SPAN_S, LEAST_REQUESTS, MOST_REQUESTS = 35.0, 4000, 30_000
REPLICAS, ROUTERS = (1, 10, 100, 1000), (1, 4, 16, 64)
TABLE_WIDTH = 92
STALE = (Knowledge.SNAPSHOT, Knowledge.OWN, Knowledge.DAMPED)

console = Console(stderr=True)


def under_load(profile: ModelProfile, slope: float) -> ModelProfile:
    """A profile that was measured at one request at a time, with a guess of what more would do.

    A step reads all weights once and then works for each request, so each further request on a
    replica adds the same share of the time that the tokens take alone. Power stays the same, and a
    request draws its part of what the replica draws. A profile that knows about load stays as it
    is.

    Args:
        slope: That share. 0.46 J a token at 8 sequences and 0.07 J at 512 (Llama-3.1-8B on one
            H100) would make it 0.02; processors are nearer to 1.
    """

    def extended(
        cost: LinearModel, suffix: str, moved: Mapping[str, str], share: float
    ) -> LinearModel:
        if "+" in cost.form or cost.form in ENGINE_FORMS:
            return cost
        terms = dict(zip(FORMS[cost.form], cost.coefficients, strict=True))
        for term, beside in moved.items():
            terms[beside] = share * terms[term]
            terms[term] -= terms[beside]
        form = cost.form + suffix
        coefficients = tuple(terms.get(term, 0.0) for term in FORMS[form])
        return replace(cost, form=form, coefficients=coefficients, standard_errors=())

    tokens = ("tin", "tout")
    return replace(
        profile,
        runtime=extended(profile.runtime, "+load", {term: f"{term}*c" for term in tokens}, slope),
        energy=extended(
            profile.energy, "+shared", {term: f"{term}/c" for term in tokens}, 1 - slope
        ),
    )


def capacity_per_s(profiles: Iterable[ModelProfile], trace: Trace, setting: Setting) -> float:
    """Requests that the whole cluster ends a second with all slots taken, by all models alike."""
    return sum(
        setting.replicas
        * setting.slots
        / statistics.fmean(profile.runtime.predict(*t, setting.slots) for t in trace.tokens)
        for profile in profiles
    )


@dataclass(frozen=True, slots=True)
class Case:
    """One row of the table.

    Attributes:
        load: Requests arriving, as a share of the capacity.
        alike: Every model is the first one: the hardest case, as nothing else tells them apart.
    """

    setting: Setting
    load: float
    alike: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    """What one simulation showed, without the requests of its warm-up.

    Attributes:
        rate_per_s: Requests arriving.
        shares: By model, of the arrivals.
        swing: See `swing`.
        imbalance: Utilization of the busiest replica over that of all; 1 is even.
        p50_s: Median latency.
        prediction_error: Mean of |predicted / actual - 1| of the runtime, for the tokens that were
            really generated.
        windows: Arrivals by window of a `REPORT_PERIOD_S` and by model, for the figure.
    """

    case: Case
    rate_per_s: float
    requests: int
    shares: tuple[float, ...]
    swing: float
    imbalance: float
    p50_s: float
    p95_s: float
    p99_s: float
    prediction_error: float
    windows: NDArray[np.float64]


def swing(windows: NDArray[np.float64], around: int) -> float:
    """How much the models' shares of the arrivals go up and down from window to window.

    The standard deviation of the counts, over what it would be if each request drew its model at
    random with the shares of the windows around it. 1: no herding. The square root of the requests
    in a window: all go to one model, and to another one later. Below 1: more even than at random.

    Args:
        windows: Arrivals by window and by model.
        around: An odd number of windows; slower changes do not count.
    """
    trend = np.stack(
        [np.convolve(np.pad(c, around // 2), np.ones(around), "valid") for c in windows.T], axis=1
    )
    shares = trend / np.maximum(trend.sum(axis=1, keepdims=True), 1)
    arrivals = windows.sum(axis=1, keepdims=True)
    # A window is part of its own trend, which takes its share of the deviation away.
    at_random = (arrivals * shares * (1 - shares)).sum() * (1 - 1 / around)
    if at_random == 0:
        return 0.0
    return math.sqrt(((windows - arrivals * shares) ** 2).sum() / at_random)


def measure(profiles: Sequence[ModelProfile], trace: Trace, case: Case) -> Result:
    """Simulate one case."""
    if case.alike:
        profiles = [
            replace(profiles[0], model=f"{profiles[0].model} {number}")
            for number in range(1, len(profiles) + 1)
        ]
    setting = replace(case.setting, occupancy=case.load)
    rate_per_s = case.load * capacity_per_s(profiles, trace, setting)
    count = min(max(round(rate_per_s * SPAN_S), LEAST_REQUESTS), MOST_REQUESTS)
    jobs = trace.jobs(rate_per_s, count, random.Random(setting.seed))
    warm_up = int(WARM_UP * count)
    simulation = Simulation(profiles, trace.lengths, setting)
    simulation.fill(trace.tokens)
    simulation.run(jobs[:warm_up])
    before_s = simulation.cluster.work(jobs[warm_up - 1].arrived_s)
    simulation.run(jobs[warm_up:])
    worked_s = np.subtract(simulation.cluster.work(jobs[-1].arrived_s), before_s)
    simulation.pass_time(math.inf)
    measured = jobs[warm_up:]
    latencies = np.array([job.latency_s for job in measured])
    predicted = np.array([job.predicted_s for job in measured], dtype=float)
    since_s = np.array([job.arrived_s for job in measured]) - measured[0].arrived_s
    places = (since_s / REPORT_PERIOD_S).astype(int)
    windows = np.zeros((places[-1] + 1, len(profiles)))
    for place, job in zip(places, measured, strict=True):
        windows[place, job.model] += 1
    p50, p95, p99 = np.quantile(latencies, (0.5, 0.95, 0.99)).tolist()
    return Result(
        case=case,
        rate_per_s=rate_per_s,
        requests=len(measured),
        shares=tuple((windows.sum(axis=0) / len(measured)).tolist()),
        swing=swing(windows, round(TREND_PERIODS * setting.period_s / REPORT_PERIOD_S) | 1),
        imbalance=float(worked_s.max() / worked_s.mean()),
        p50_s=p50,
        p95_s=p95,
        p99_s=p99,
        prediction_error=float(np.abs(predicted / latencies - 1).mean()),
        windows=windows,
    )


def cases(quick: bool, seed: int) -> list[Case]:
    """All rows; what does not depend on the number of routers stands there once."""

    def group(replicas: int, routers: Sequence[int] = ROUTERS[-1:], **others: Any) -> list[Case]:
        load, alike = others.pop("load", 0.9), others.pop("alike", False)
        kinds = [(Knowledge.BLIND, routers[-1])]
        kinds += [(knowledge, count) for count in routers for knowledge in STALE]
        kinds += [(Knowledge.FRESH, routers[-1])]
        return [
            Case(Setting(knowledge, replicas, count, seed=seed, **others), load, alike)
            for knowledge, count in kinds
        ]

    if quick:
        return group(100, (1, 64))
    rows = [case for replicas in REPLICAS for case in group(replicas, ROUTERS)]
    rows += [case for replicas in REPLICAS[1:] for case in group(replicas, alike=True)]
    rows += group(100, load=0.6) + group(100, load=0.3)
    # As if the store could not keep up; a snapshot of 3 s is not used any more.
    rows += group(100, period_s=1.0, delay_s=0.4) + group(100, period_s=2.0, delay_s=0.8)
    return rows + group(100, weights=BALANCED)


def as_table(results: Sequence[Result]) -> Table:
    """One row a simulation, one section a cluster."""
    table = Table(
        title="Many routers, old snapshots: do they herd?",
        caption="Where nothing else is said: time alone counts, 90 % of the capacity, models "
        f"that differ, a snapshot every {REPORT_PERIOD_S:g} s.",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for name in ("", "replicas", "routers", "they know"):
        table.add_column(name, justify="right" if name.startswith("r") else "left", no_wrap=True)
    for name in ("swing", "imbalance", "p50 s", "p95 s", "p99 s", "error %"):
        table.add_column(name, justify="right", no_wrap=True)
    section: tuple[str, str] | None = None
    for result in results:
        setting = result.case.setting
        here = (_remark(result.case), f"{setting.replicas:,}")
        if section and here != section:
            table.add_section()
        section = here
        table.add_row(
            *here,
            str(setting.routers) if setting.knowledge in STALE else "any",
            setting.knowledge,
            f"{result.swing:.2f}",
            f"{result.imbalance:.2f}",
            *(f"{seconds:.1f}" for seconds in (result.p50_s, result.p95_s, result.p99_s)),
            f"{100 * result.prediction_error:.1f}",
        )
    return table


def _remark(case: Case) -> str:
    """What is unusual."""
    remarks = {
        "alike": case.alike,
        f"{case.load:.0%} load": case.load != 0.9,
        f"every {case.setting.period_s:g} s": case.setting.period_s != REPORT_PERIOD_S,
        "balanced": case.setting.weights == BALANCED,
    }
    return ", ".join(remark for remark, applies in remarks.items() if applies)


def as_json(results: Sequence[Result]) -> list[dict[str, Any]]:
    """The same with what the table leaves out, but for the single windows."""
    rows = []
    for result in results:
        row = asdict(result)
        del row["windows"]
        case = row.pop("case")
        rows.append({**case.pop("setting"), **case, **row})
    return rows


def main() -> int:
    """Simulate and print; 1 where a file cannot be used."""
    args = _parse()
    try:
        trace = read_trace(args.trace) if args.trace else random_trace(seed=args.seed)
        profiles = read_profiles(args.profiles, args.slope)
    except (OSError, ValueError, ProfileError) as error:
        console.print(f"error: {error}", style="red", markup=False, highlight=False)
        return 1
    rows = cases(args.quick, args.seed)
    with Progress(console=console, transient=True) as progress:
        results = [measure(profiles, trace, case) for case in progress.track(rows)]
    if args.json:
        print(json.dumps(as_json(results), indent=2))
    else:
        # What is piped has no width of its own, and a cut table is of no use.
        Console(width=max(Console().width, TABLE_WIDTH)).print(as_table(results))
    if args.plot:
        draw_herding(results, [profile.model for profile in profiles], args.plot)
    return 0


def read_profiles(path: Path | None, slope: float) -> list[ModelProfile]:
    """Profiles of a file, or those of the embedded models, each knowing about load.

    Raises:
        OSError: The file cannot be read.
        ProfileError: It is no profile set.
    """
    embedded = files("deployments").joinpath("data", "embedded_profiles.json")
    text = (path or embedded).read_text(encoding="utf-8")
    return [under_load(profile, slope) for profile in ProfileSet.from_json(text).profiles]


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Do many routers with old snapshots herd?")
    parser.add_argument(
        "--trace",
        type=Path,
        metavar="FILE",
        help="CSV with timestamp, input_tokens, output_tokens (default: random arrivals)",
    )
    parser.add_argument(
        "--profiles", type=Path, metavar="FILE", help="profile set (default: the embedded models')"
    )
    parser.add_argument(
        "--slope",
        type=float,
        default=0.1,
        help="what each further request on a replica adds to the time of its tokens, as a share of "
        "that time alone, for profiles that do not know (default: %(default)g)",
    )
    parser.add_argument("--quick", action="store_true", help="only 100 replicas, 1 and 64 routers")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="also draw the figure (PNG, SVG)")
    args = parser.parse_args()
    if args.plot and args.quick:
        parser.error("--plot shows the whole sweep, which --quick leaves out")
    if args.plot and not (args.plot.suffix in (".png", ".svg") and args.plot.parent.is_dir()):
        parser.error(f"--plot must be a .png or .svg in a folder that exists, got {args.plot}")
    if not 0 <= args.slope <= 1:
        parser.error(f"--slope must be in 0..1, got {args.slope:g}")
    return args


if __name__ == "__main__":
    sys.exit(main())
