"""`status`, `status --watch` and `top`: an overview as one screen, legible from 80 columns on."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, JustifyMethod, RenderableType
from rich.table import Table
from rich.text import Text

from cluster.cli.overview import ModelLoad, Overview
from cluster.naming import model_deployment_name
from cluster.serve_api import Application, Deployment, Node

COLORS = {"RUNNING": "green", "HEALTHY": "green", "DEPLOY_FAILED": "red", "UNHEALTHY": "red"}
GATE = "Gate"
"""Deployment that holds a model's in its application, see `deployments.gate`."""
NOTHING = "-"


def screen(overview: Overview, width: int) -> RenderableType:
    """Everything, for a terminal of so many columns."""
    parts: list[RenderableType] = [Text(_headline(overview), style="bold", no_wrap=True)]
    if overview.nodes:
        parts += ["", _nodes(overview.nodes)]
    applications = list(overview.serve.applications.values())
    if applications:
        parts += ["", _applications(overview, wide=width >= 100)]
        parts += [Text(line, style="yellow") for line in _remarks(overview)]
    else:
        parts.append(Text("Ray runs, and nothing is deployed on it."))
    parts += [Text(fault, style="yellow") for fault in overview.faults]
    return Group(*parts)


def _headline(overview: Overview) -> str:
    loads = overview.loads.values()
    if not loads:
        return overview.address
    ongoing = sum(load.ongoing for load in loads)
    tokens = sum(load.tokens_per_s for load in loads)
    watts = sum(load.power_watts for load in loads)
    return (
        f"{overview.address}   {ongoing:.0f} ongoing   {tokens:,.0f} tokens/s   {watts:,.0f} W   "
        f"{overview.routers} router{'' if overview.routers == 1 else 's'}"
    )


def _nodes(nodes: tuple[Node, ...]) -> Table:
    table = _table("Node", "CPU", "Memory", "Accelerators")
    for node in nodes:
        name = Text(f"{node.hostname}{' (head)' if node.is_head else ''}")
        if not node.alive:
            table.add_row(name, Text(node.state.lower(), style="red"), NOTHING, NOTHING)
            continue
        gpus = "\n".join(
            f"{gpu.name} {gpu.utilization_percent:.0f} %, "
            f"{gpu.memory_used_bytes / 2**30:.0f}/{gpu.memory_total_bytes / 2**30:.0f} GiB"
            for gpu in node.gpus
        )
        cores = f"{node.cpu_percent:.0f} %"
        memory = f"{node.memory_used_bytes / 2**30:.0f}/{node.memory_total_bytes / 2**30:.0f} GiB"
        table.add_row(name, cores, memory, gpus or f"{node.cores} cores")
    return table


def _applications(overview: Overview, *, wide: bool) -> Table:
    columns = ["Application", "State", "Replicas", "Scaling", "Load", "Tokens/s", "Power"]
    table = _table(*columns, *(("Drift", "Accelerator") if wide else ()))
    for application in overview.serve.applications.values():
        load = overview.load_of(application.name)
        deployments = _shown(application)
        figures = _figures(load, deployments)
        table.add_row(
            Text(application.name),
            _state(application, load),
            _replicas(deployments),
            _scaling(application, deployments),
            *(figures if wide else figures[:3]),
        )
    return table


def _table(*columns: str) -> Table:
    table = Table(header_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    right = {"CPU", "Memory", "Replicas", "Load", "Tokens/s", "Power", "Drift"}
    for column in columns:
        # What is long breaks before any number does, and only where it does not fit.
        breaks = column in ("Application", "Node", "Accelerators", "Accelerator")
        side: JustifyMethod = "right" if column in right else "left"
        table.add_column(column, justify=side, no_wrap=not breaks, overflow="fold")
    return table


def _shown(application: Application) -> list[Deployment]:
    """The deployment of a model alone; of other applications every one."""
    model = application.deployments.get(model_deployment_name(application.name))
    return [model] if model else [d for n, d in application.deployments.items() if n != GATE]


def _state(application: Application, load: ModelLoad | None) -> Text:
    if application.status == "RUNNING" and load is not None and load.reason is not None:
        return Text("away", style="yellow")
    words = {"DEPLOY_FAILED": "failed", "NOT_STARTED": "waiting"}
    word = words.get(application.status, application.status.lower())
    return Text(word, style=COLORS.get(application.status, "yellow"))


def _replicas(deployments: list[Deployment]) -> str:
    """`2/3`: running, and how many there should be."""
    if not deployments:
        return NOTHING
    running = sum(deployment.count("RUNNING") for deployment in deployments)
    return f"{running}/{sum(deployment.target_replicas for deployment in deployments)}"


def _scaling(application: Application, deployments: list[Deployment]) -> str:
    for deployment in deployments:
        if bounds := deployment.autoscaling:
            return f"auto {bounds.minimum}-{bounds.maximum}"
    return "fixed" if application.external_scaler else ""


def _figures(load: ModelLoad | None, deployments: list[Deployment]) -> list[str]:
    if load is None:
        return ["", "", "", "", ""]
    running = sum(deployment.count("RUNNING") for deployment in deployments)
    places = f"/{load.slots * running}" if load.slots and running else ""
    return [
        f"{load.ongoing:.0f}{places}",
        f"{load.tokens_per_s:,.0f}",
        f"{load.power_watts:,.0f} W",
        f"x{load.drift:.2f}",
        ", ".join(load.accelerators),
    ]


def _remarks(overview: Overview) -> Iterator[str]:
    """What a table has no room for: why something is not as it should be."""
    for application in overview.serve.applications.values():
        load = overview.load_of(application.name)
        if application.message:
            yield f"{application.name}: {application.message}"
        elif load is not None and load.reason is not None:
            yield f"{application.name}: {load.reason}"
        for deployment in _shown(application):
            others = sorted({replica.state for replica in deployment.replicas} - {"RUNNING"})
            counts = ", ".join(f"{deployment.count(state)} {state.lower()}" for state in others)
            if counts:
                yield f"{application.name}: {counts}"
