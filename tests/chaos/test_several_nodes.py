"""Three raylets with a declared GPU each, of two kinds: placement, profiling, a node that leaves.

It stands here, before the integration tests, so that its engines are gone before theirs come.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import psutil
import pytest

from chaos.raylets import RayletSite, running_raylets
from chaos.site import ROUTER, command_line, descendants
from cluster.scaling import model_deployment
from cluster.serve_api import ServeApi
from profiling.trials.log import read_trials

pytestmark = pytest.mark.integration

ANSWERS = 6


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayletSite]:
    with running_raylets(tmp_path_factory.mktemp("nodes"), routers=3) as site:
        yield site


def ask(site: RayletSite) -> httpx.Response:
    """For the most accurate model."""
    return site.cluster.post(
        "/v1/completions",
        model="auto",
        prompt="Hello",
        max_tokens=4,
        routing={"weights": {"accuracy": 1}},
    )


def answered_by(site: RayletSite) -> set[str]:
    """Models that answered a few requests."""
    responses = [ask(site) for _ in range(ANSWERS)]
    assert {response.status_code for response in responses} == {200}
    return {response.headers["x-routed-model"] for response in responses}


def node_ids(site: RayletSite, model: str) -> set[str | None]:
    with ServeApi(site.cluster.dashboard) as api:
        deployment = model_deployment(api.details().applications[model])
    assert deployment is not None
    return {replica.node_id for replica in deployment.replicas}


def runs_on(raylet: psutil.Process, title: str) -> int:
    return sum(title in command_line(child) for child in raylet.children())


def test_replicas_are_spread_and_pinned(site: RayletSite) -> None:
    (h100,) = (node for node in site.nodes if node.kind == "H100")
    (phi3,) = site.cluster.replicas("tiny-phi3")
    assert phi3 in descendants(h100.process)
    mistral, others = node_ids(site, "tiny-mistral"), node_ids(site, "tiny-phi3")
    assert len(mistral) == 2
    assert len(mistral | others) == 3
    assert [runs_on(raylet, ROUTER) for raylet in site.cluster.raylets()] == [1, 1, 1]
    assert site.cluster.get("/v1/live?since=9999999999")["routers"] == 3
    assert answered_by(site) == {"tiny-phi3"}


def test_the_job_measures_on_the_nodes_of_the_replicas(site: RayletSite) -> None:
    done = site.cluster.run("python", "-m", "profiling", "run", "--quick", "--brief")
    assert done.returncode == 0, done.stdout + done.stderr
    trials, _ = read_trials(site.cluster.data_dir / "raw_profiles")
    measured = {model: set(rows["node_id"]) for model, rows in trials.groupby("model")}
    assert set(measured) == {"tiny-phi3", "tiny-mistral"}
    assert measured["tiny-phi3"] == node_ids(site, "tiny-phi3")
    # Replicas on accelerators of one kind cost the same: one of them is measured.
    assert len(measured["tiny-mistral"]) == 1
    assert measured["tiny-mistral"] < node_ids(site, "tiny-mistral")
    (version,) = {site.health()["profile_version"] for _ in range(ANSWERS)}
    assert version in done.stdout


def test_a_node_leaves_and_comes_back(site: RayletSite) -> None:
    node = site.node_of(site.cluster.replicas("tiny-phi3"))
    site.victims += node.kill()
    site.cluster.wait_until("answers go on", lambda: is_answered(site), 60)
    site.cluster.wait_until("its model is away", lambda: not available(site, "tiny-phi3"), 60)
    assert answered_by(site) == {"tiny-mistral"}
    site.cluster.wait_until("Ray knows", lambda: alive(site) == 2, 90)
    site.replace(node)
    site.wait_until_well(240)
    assert alive(site) == 3
    assert answered_by(site) == {"tiny-phi3"}
    assert len(node_ids(site, "tiny-phi3") | node_ids(site, "tiny-mistral")) == 3


def is_answered(site: RayletSite) -> bool:
    """Until its router's death is noticed, some connections come to nothing."""
    try:
        return ask(site).status_code == 200
    except httpx.TransportError:
        return False


def available(site: RayletSite, model: str) -> bool:
    return bool(site.health()["models"][model]["available"])


def alive(site: RayletSite) -> int:
    """Nodes, as `cluster nodes` has them."""
    done = site.cluster.run("python", "-m", "cluster", "nodes", "--json")
    return sum(node["alive"] for node in json.loads(done.stdout))
