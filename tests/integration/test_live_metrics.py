"""What Ray's own Prometheus endpoint has after a request, and the spans that a request leaves."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from live_cluster import ROOT, Cluster, free_port
from otlp_collector import Collector
from prometheus_client.parser import text_string_to_metric_families

from deployments.router.observe.metrics import COUNTERS, GAUGES, HISTOGRAMS

pytestmark = pytest.mark.integration

DASHBOARD = json.loads((ROOT / "cluster/dashboards/dynamic-llm-scheduler.json").read_text())
QUERIES = [
    (panel["title"], target["expr"])
    for panel in DASHBOARD["panels"]
    for target in panel.get("targets", ())
]
ONLY_WHERE_MODELS_BREAK = "Tries that broke"


def collector_of(cluster: Cluster) -> Collector:
    assert cluster.collector is not None
    return cluster.collector


def scrape(cluster: Cluster) -> dict[str, list[tuple[dict[str, str], float]]]:
    """Series by name."""
    text = httpx.get(cluster.metrics_url, timeout=30).raise_for_status().text
    series: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            series.setdefault(sample.name, []).append((sample.labels, sample.value))
    return series


def total(cluster: Cluster, name: str, **labels: str) -> float:
    found = scrape(cluster).get(f"ray_llm_scheduler_{name}", [])
    return sum(value for has, value in found if labels.items() <= has.items())


def test_a_request_is_in_the_prometheus_endpoint_of_ray(cluster: Cluster) -> None:
    which = {"model": "tiny-mistral", "task": "translation"}
    before = {
        name: total(cluster, name, **which)
        for name in ("requests_total", "output_tokens_total", "energy_joules_total")
    }
    answer = cluster.post(
        "/v1/completions",
        model="tiny-mistral",
        prompt="Translate into German: one two three",
        max_tokens=8,
        ignore_eos=True,
    ).json()
    taken = answer["routing"]["actual"]
    cluster.wait_until(
        "the request is counted",
        lambda: total(cluster, "requests_total", **which) > before["requests_total"],
        60,
    )

    def grown(name: str) -> float:
        return total(cluster, name, **which) - before[name]

    assert grown("requests_total") == 1
    assert grown("output_tokens_total") == taken["output_tokens"] == 8
    assert grown("energy_joules_total") == pytest.approx(taken["energy_joules"], rel=1e-6)
    assert total(cluster, "time_to_first_token_seconds_bucket", le="+Inf", **which) >= 1
    assert total(cluster, "prediction_ratio_bucket", le="+Inf", cost="energy", **which) >= 1
    # The router of one application: nothing of a client is in a label.
    labels = {
        label
        for name, found in scrape(cluster).items()
        if name.startswith("ray_llm_scheduler_")
        for has, _ in found
        for label in has
    }
    ours = {
        label
        for table in (COUNTERS, HISTOGRAMS, GAUGES)
        for entry in table.values()
        for label in entry[-1]
    }
    of_ray = {"deployment", "replica", "application", "SessionName", "NodeAddress", "WorkerId"}
    of_ray |= {"Component", "Version", "JobId", "le"}
    assert {n for n in labels if not n.startswith("otel_scope_")} <= ours | of_ray


def test_every_series_that_the_dashboard_asks_for_is_there(cluster: Cluster) -> None:
    cluster.post("/v1/completions", model="auto", prompt="one", max_tokens=4, ignore_eos=True)
    cluster.post("/v1/completions", model="unheard-of", prompt="one")
    asked = {name for _, query in QUERIES for name in re.findall(r"\bray_\w+", query)}
    deadline = time.monotonic() + 60
    while (missing := asked - scrape(cluster).keys()) and time.monotonic() < deadline:
        time.sleep(1)
    assert missing == set()


def test_the_queries_of_the_dashboard_in_a_real_prometheus(
    cluster: Cluster, tmp_path: Path
) -> None:
    prometheus = shutil.which("prometheus")
    if prometheus is None:
        pytest.skip("no Prometheus here (Debian: apt-get install prometheus)")
    address = f"127.0.0.1:{free_port()}"
    target = {"targets": [httpx.URL(cluster.metrics_url).netloc.decode()]}
    jobs = [{"job_name": "ray", "static_configs": [target]}]
    config = tmp_path / "prometheus.yml"
    config.write_text(json.dumps({"global": {"scrape_interval": "1s"}, "scrape_configs": jobs}))
    command = [prometheus, f"--config.file={config}", f"--storage.tsdb.path={tmp_path / 'data'}"]
    process = subprocess.Popen(
        [*command, f"--web.listen-address={address}"], stderr=subprocess.DEVNULL
    )

    def ask(query: str) -> list[Any]:
        for variable in ("$model", "$task"):
            query = query.replace(variable, ".*")
        query = query.replace("$__rate_interval", "1m")
        answer = httpx.get(f"http://{address}/api/v1/query", params={"query": query}, timeout=30)
        assert answer.json()["status"] == "success", (query, answer.json())
        result: list[Any] = answer.json()["data"]["result"]
        return result

    def empty() -> list[str]:
        cluster.post("/v1/completions", model="auto", prompt="one", max_tokens=4, ignore_eos=True)
        cluster.post("/v1/completions", model="unheard-of", prompt="one")
        return [
            query for title, query in QUERIES if title != ONLY_WHERE_MODELS_BREAK and not ask(query)
        ]

    def listens() -> bool:
        try:
            return httpx.get(f"http://{address}/-/ready", timeout=5).is_success
        except httpx.TransportError:
            return False

    try:
        cluster.wait_until("Prometheus", listens, 30)
        cluster.wait_until("all panels have data", lambda: not empty(), 60)
        for _, query in QUERIES:
            ask(query)
    finally:
        process.terminate()
        process.wait(30)


def test_a_trace_goes_from_the_request_to_the_engine(cluster: Cluster) -> None:
    trace_id = f"{time.time_ns():032x}"
    body = {"model": "tiny-mistral", "prompt": "one two", "max_tokens": 3, "ignore_eos": True}
    headers = {"traceparent": f"00-{trace_id}-b7ad6b7169203331-01"}
    httpx.post(f"{cluster.url}/v1/completions", json=body, headers=headers, timeout=60)
    names = [
        *("text_completion tiny-mistral", "decide", "attempt tiny-mistral"),
        *("generate tiny-mistral", "llm_request"),
    ]

    def missing() -> set[str]:
        return set(names) - collector_of(cluster).of_trace(trace_id).keys()

    with suppress(AssertionError):
        cluster.wait_until("all spans", lambda: not missing(), 60)
    assert missing() == set()
    request, decide, attempt, generate, engine = map(
        collector_of(cluster).of_trace(trace_id).__getitem__, names
    )
    assert request.parent_span_id.hex() == "b7ad6b7169203331"
    assert decide.parent_span_id == attempt.parent_span_id == request.span_id
    assert generate.parent_span_id == attempt.span_id
    assert engine.parent_span_id == generate.span_id
    assert request.start_time_unix_nano <= attempt.start_time_unix_nano
    assert attempt.end_time_unix_nano <= request.end_time_unix_nano


def test_who_sends_no_trace_context_is_not_traced_where_the_sampler_says_so(
    cluster: Cluster,
) -> None:
    traced = {span.trace_id for span in collector_of(cluster).spans}
    cluster.post("/v1/completions", model="tiny-mistral", prompt="one", max_tokens=1)
    test_a_trace_goes_from_the_request_to_the_engine(cluster)
    assert len({span.trace_id for span in collector_of(cluster).spans} - traced) == 1
