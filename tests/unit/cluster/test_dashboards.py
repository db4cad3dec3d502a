"""The Grafana dashboard: what Grafana needs is there, and it asks for series that there are."""

from __future__ import annotations

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

import cluster
from deployments.router.observe.metrics import COUNTERS, GAUGES, HISTOGRAMS, PREFIX

FOLDER = Path(cluster.__file__).parent / "dashboards"
DASHBOARD: dict[str, Any] = json.loads((FOLDER / "dynamic-llm-scheduler.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [target["expr"] for panel in PANELS for target in panel["targets"]]
SERIES = {
    **{f"ray_{PREFIX}{name}_total": tags for name, (_, tags) in COUNTERS.items()},
    **{f"ray_{PREFIX}{name}_bucket": (*tags, "le") for name, (_, _, tags) in HISTOGRAMS.items()},
    **{f"ray_{PREFIX}{name}_count": tags for name, (_, _, tags) in HISTOGRAMS.items()},
    **{f"ray_{PREFIX}{name}": tags for name, (_, tags) in GAUGES.items()},
    "ray_device_power_watts": ("model", "device", "source", "NodeAddress"),
}


@pytest.mark.parametrize("query", QUERIES)
def test_queries_ask_for_series_and_labels_that_there_are(query: str) -> None:
    asked = re.findall(r"(ray_\w+)(?:\{([^}]*)\})?", query)
    assert asked
    known = set()
    for series, selector in asked:
        assert series in SERIES
        known |= set(SERIES[series])
        assert set(re.findall(r"(\w+)(?:=~|!=|=)", selector)) <= set(SERIES[series])
    for labels in re.findall(r"by \(([^)]*)\)", query):
        assert set(labels.split(", ")) <= known
    assert query.count("(") == query.count(")")


def test_every_metric_of_the_router_is_on_it() -> None:
    shown = " ".join(QUERIES)
    for name in (*COUNTERS, *HISTOGRAMS, *GAUGES):
        assert f"{PREFIX}{name}" in shown, name


def test_panels_say_what_they_show_and_in_what_unit() -> None:
    for panel in PANELS:
        assert panel["title"]
        assert panel["description"].endswith(".")
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert {target["refId"] for target in panel["targets"]} == set(
            "ABCDEFG"[: len(panel["targets"])]
        )
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))


def test_panels_lie_side_by_side() -> None:
    boxes = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    assert all(box["x"] + box["w"] <= 24 for box in boxes)
    for a, b in combinations(boxes, 2):
        apart = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        above = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        assert apart or above


def test_variables_that_queries_use_are_defined() -> None:
    text = json.dumps(DASHBOARD)
    defined = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?([a-z]\w*)", text))
    assert used == defined
