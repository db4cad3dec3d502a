"""What `overhead` measured: the figures of all servers side by side, and which goals are met."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from loadgen import Load, Measurement
from rich import box
from rich.table import Table

VLLM, PINNED, AUTO = "vLLM alone", "pinned", "auto"
RUST_ROUTER, LITELLM, RAY_INGRESS = "vllm-router", "LiteLLM", "Ray ingress"
OURS = (PINNED, AUTO)

ONE = Load(clients=1, output_tokens=1, stream=False)
EIGHT = Load(clients=8, output_tokens=1, stream=False)
SIXTEEN = Load(clients=16, output_tokens=1, stream=False)
SIXTY_FOUR = Load(clients=64, output_tokens=1, stream=False)
STREAMS = Load(clients=8, output_tokens=64, stream=True)
# So long a prompt keeps the engine busy for long enough that its first token can be distinguished
# from the others, by any reader.
LONG_PROMPT = Load(clients=1, output_tokens=16, stream=True, input_tokens=1024)


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure of a measurement.

    Attributes:
        name: Attribute of `Measurement`.
        label: For people, with the unit.
        factor: From the attribute's unit to the label's.
    """

    name: str
    label: str
    factor: float = 1.0


P50 = Metric("runtime_p50_s", "p50 ms", 1000)
P95 = Metric("runtime_p95_s", "p95 ms", 1000)
RATE = Metric("requests_per_s", "requests/s")
TOKENS = Metric("tokens_per_s", "tokens/s")
TTFT = Metric("ttft_p50_s", "TTFT p50 ms", 1000)
READS = Metric("reads_per_request", "pieces a stream")
APART = Metric("tokens_apart", "tokens apart")
GAP = Metric("gap_p95_s", "pause p95 ms", 1000)
CPU = Metric("cpu_per_request_s", "CPU ms a request", 1000)
PROXY_CPU = Metric("proxy_cpu_per_request_s", "CPU ms, proxy", 1000)

METRICS: Mapping[Load, Sequence[Metric]] = {
    ONE: (P50, P95, RATE, CPU, PROXY_CPU),
    EIGHT: (P50, P95, RATE),
    SIXTEEN: (P50, P95, RATE, CPU, PROXY_CPU),
    SIXTY_FOUR: (P50, P95, RATE),
    STREAMS: (TOKENS, TTFT, GAP),
    LONG_PROMPT: (TTFT, READS, APART, GAP),
}


@dataclass(frozen=True, slots=True)
class Goal:
    """What our figure is to be, compared with that of another server.

    Attributes:
        against: The other server.
        limit: Of ours over theirs; of ours less theirs, in the unit of the metric's label, where
            `added`.
        least: Whether more than the limit is good, not less.
    """

    load: Load
    metric: Metric
    against: str
    limit: float
    added: bool = False
    least: bool = False

    def __str__(self) -> str:
        bound = "at least" if self.least else "at most"
        what = f"{self.metric.label} at {self.load}"
        if self.added:
            return f"{what}: {bound} {self.limit:g} more than {self.against}"
        return f"{what}: {bound} {self.limit:g} x {self.against}"

    def met(self, value: float) -> bool:
        return value >= self.limit if self.least else value <= self.limit


GOALS = (
    Goal(ONE, P50, VLLM, 1.2, added=True),
    Goal(SIXTEEN, RATE, VLLM, 0.9, least=True),
    Goal(SIXTEEN, RATE, LITELLM, 4.0, least=True),
    Goal(SIXTEEN, RATE, RAY_INGRESS, 3.0, least=True),
    Goal(SIXTY_FOUR, RATE, VLLM, 1.0, least=True),
    Goal(STREAMS, TOKENS, VLLM, 0.95, least=True),
    Goal(LONG_PROMPT, TTFT, VLLM, 4.0, added=True),
    # Less where several tokens came at once; as often as it happens to vLLM is not our doing.
    Goal(LONG_PROMPT, APART, VLLM, 0.9, least=True),
    Goal(SIXTEEN, CPU, RAY_INGRESS, 0.5),
)


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that was measured.

    Attributes:
        measured: By load and server, one measurement a round.
        missing: Server that could not be measured -> why.
        replicas: Requests a second at 16 clients, by the number of router replicas.
        idle_cpus: CPUs in use while all servers were up and none was asked.
        about: Machine, date, versions, settings.
    """

    measured: Mapping[Load, Mapping[str, Sequence[Measurement]]]
    missing: Mapping[str, str]
    replicas: Mapping[int, float]
    idle_cpus: float
    about: Mapping[str, Any]

    @property
    def servers(self) -> list[str]:
        """Those that were measured."""
        return list(next(iter(self.measured.values())))

    def values(self, load: Load, metric: Metric, server: str) -> list[float]:
        """One for each round, in the unit of the metric's label."""
        return [getattr(m, metric.name) * metric.factor for m in self.measured[load][server]]

    def median(self, load: Load, metric: Metric, server: str) -> float:
        return statistics.median(self.values(load, metric, server))

    def reached(self, goal: Goal, server: str) -> float | None:
        """What one of ours makes of a goal; `None` where the other server was not measured."""
        if goal.against in self.missing:
            return None
        ours, theirs = (self.median(goal.load, goal.metric, s) for s in (server, goal.against))
        return ours - theirs if goal.added else ours / theirs

    @property
    def stall_s(self) -> float:
        """How long the client itself was usually kept waiting, at the worst moment."""
        return statistics.median(
            m.stall_s for servers in self.measured.values() for ms in servers.values() for m in ms
        )


def figures_table(report: Report) -> Table:
    """All servers side by side."""
    table = Table(
        title="medians over the rounds", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False
    )
    table.add_column("load: clients, prompt -> answer", no_wrap=True)
    table.add_column("", no_wrap=True)
    for server in report.servers:
        table.add_column(server, justify="right", no_wrap=True)
    for load, metrics in METRICS.items():
        for metric in metrics:
            table.add_row(
                str(load) if metric is metrics[0] else "",
                metric.label,
                *(_number(report.median(load, metric, server)) for server in report.servers),
            )
        table.add_section()
    return table


def goals_table(report: Report) -> Table:
    """Which goals are met."""
    table = Table(title="goals", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("goal")
    for server in OURS:
        table.add_column(server, justify="right", no_wrap=True)
        table.add_column("", no_wrap=True)
    for goal in GOALS:
        cells = []
        for server in OURS:
            value = report.reached(goal, server)
            if value is None:
                cells += ["-", "not measured"]
            else:
                met = goal.met(value)
                cells += [
                    f"{value:+.1f}" if goal.added else f"{value:.2f}",
                    "[green]met[/]" if met else "[red]not met[/]",
                ]
        table.add_row(str(goal), *cells)
    return table


def as_json(report: Report) -> dict[str, Any]:
    """For scripts; seconds, as everywhere inside."""
    return {
        **report.about,
        "missing": dict(report.missing),
        "router_replicas": {str(n): rate for n, rate in report.replicas.items()},
        "idle_cpus": report.idle_cpus,
        "client_stall_s": report.stall_s,
        "figures": [
            {
                **asdict(load),
                "metric": metric.name,
                "medians": {
                    s: report.median(load, metric, s) / metric.factor for s in report.servers
                },
                "rounds": {
                    s: [value / metric.factor for value in report.values(load, metric, s)]
                    for s in report.servers
                },
            }
            for load, metrics in METRICS.items()
            for metric in metrics
        ],
        "goals": [
            {
                "goal": str(goal),
                "limit": goal.limit,
                "reached": reached,
                "met": {s: None if v is None else goal.met(v) for s, v in reached.items()},
            }
            for goal in GOALS
            for reached in [{server: report.reached(goal, server) for server in OURS}]
        ],
    }


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
