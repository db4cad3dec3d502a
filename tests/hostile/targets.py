"""Services to aim at: one that runs already, a cluster of the tests' models, Ray's own ingress."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from live_cluster import launched, model_application, prior
from tiny_checkpoints import build_tiny_checkpoints

from deployments.demo_models.catalog import cache_folder
from deployments.router.access.auth import API_KEYS_VARIABLE
from hostile.cases import Target

AUTO = "auto"
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
PEER_MODEL = "tiny-mistral"
KEY, BAD_KEY = "key-of-the-ordinary", "key-of-the-corpus"
RAY_OPTIONS = "--num-gpus=2 --num-cpus=2 --object-store-memory=100000000"


def running_service(
    url: str, key: str | None = None, bad_key: str | None = None, models: str | None = None
) -> Target:
    """One that somebody else has started.

    Args:
        url: Where.
        key: API key of the ordinary clients.
        bad_key: Of the client that sends the corpus.
        models: Those of its models that are used, divided by commas; all where it is `None`.

    Raises:
        httpx.HTTPError: It does not say which models it has.
    """
    address = httpx.URL(url)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    listing = address.copy_with(raw_path=b"/v1/models")
    response = httpx.get(listing, headers=headers, timeout=30)
    response.raise_for_status()
    names = [model["id"] for model in response.json()["data"]]
    ours = AUTO in names
    wanted = models.split(",") if models else names
    return Target(
        (address.host, address.port or 80),
        tuple(name for name in names if name != AUTO and name in wanted),
        auto=AUTO if ours else None,
        routes=ours,
        key=key,
        bad_key=bad_key,
    )


@contextmanager
def own_cluster(folder: Path) -> Iterator[Target]:
    """Two of the tests' tiny models and a router with its defaults, on free ports.

    With API keys: who cannot be told apart cannot be kept apart where a flood is of valid requests.
    """
    checkpoints = build_tiny_checkpoints(cache_folder() / "tests")
    prior_file = folder / "prior.json"
    prior_file.write_text(prior().to_json())
    router: dict[str, Any] = {
        "name": "router",
        "route_prefix": "/",
        "import_path": "deployments.app:build_router",
        "args": {"data_dir": str(folder / "data"), "num_cpus": 0.1},
        "deployments": [
            {
                "name": "Router",
                "user_config": {
                    "prior_profiles": str(prior_file),
                    "models": [{"id": "tiny-phi3"}, {"id": "tiny-mistral"}],
                },
            }
        ],
    }
    config = {
        "logging_config": {"enable_access_log": False},
        "applications": [
            router,
            _with_tools(model_application("tiny-phi3", checkpoints["tiny-phi3"]), "granite"),
            _with_tools(
                model_application("tiny-mistral", checkpoints["tiny-mistral"], "float32"), "glm45"
            ),
        ],
    }
    keys = {API_KEYS_VARIABLE: f"{KEY},{BAD_KEY}"}
    with launched(config, folder, checkpoints, RAY_OPTIONS, keys) as cluster:
        cluster.wait_until_ready()
        yield running_service(cluster.url, KEY, BAD_KEY)


def _with_tools(application: dict[str, Any], parser: str) -> dict[str, Any]:
    """A model whose tool calls this parser of vLLM reads."""
    application["args"]["engine_kwargs"] |= {
        "enable_auto_tool_choice": True,
        "tool_call_parser": parser,
    }
    return application


@contextmanager
def ray_serve_llm(folder: Path) -> Iterator[Target]:
    """Ray Serve LLM's own ingress with Ray's defaults, in front of one of the same models."""
    # Scripts: their folder is no package.
    sys.path.insert(0, str(BENCHMARKS))
    from peers import ray_ingress

    checkpoint = build_tiny_checkpoints(cache_folder() / "tests")[PEER_MODEL]
    with ray_ingress(PEER_MODEL, checkpoint, folder) as server:
        server.wait_until_ready()
        yield running_service(server.url)
