"""The service that the clients talk to: two tiny models that can be made to call tools.

Their weights are random, so that a grammar makes them call: `tool_choice` names the tool or
requires one, and the arguments are of an `enum`. What coding agents send has thousands of tokens,
so that one model has a long context.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from live_cluster import Cluster, launched, model_application, prior
from tiny_checkpoints import build_tiny_checkpoints

from deployments.demo_models.catalog import cache_folder

MODEL = "tiny-mistral"
OTHER = "tiny-phi3"
CONTEXT = 65_536


def configuration(folder: Path, checkpoints: dict[str, Path]) -> dict[str, Any]:
    """The YAML: both models, an alias, contents recorded, tools on."""
    prior_file = folder / "prior.json"
    prior_file.write_text(prior().to_json())
    applications = [
        model_application(MODEL, checkpoints[MODEL], "float32", 0.5),
        model_application(OTHER, checkpoints[OTHER]),
    ]
    for application in applications:
        application["args"]["engine_kwargs"] |= {
            "enable_auto_tool_choice": True,
            "tool_call_parser": "hermes",
        }
    # The other one keeps its short context: what is too long for it is not sent there.
    applications[0]["args"]["engine_kwargs"] |= {
        "max_model_len": CONTEXT,
        "hf_overrides": {"max_position_embeddings": CONTEXT},
        "kv_cache_memory_bytes": 384 * 2**20,
        "max_num_seqs": 8,
    }
    user_config = {
        "prior_profiles": str(prior_file),
        "models": [{"id": MODEL}, {"id": OTHER}],
        "aliases": {"gpt-4o": "auto"},
    }
    router = {
        "name": "router",
        "route_prefix": "/",
        "import_path": "deployments.app:build_router",
        "args": {
            "data_dir": str(folder / "data"),
            "num_cpus": 0.1,
            "request_timeout_s": 120,
            "record_content": True,
        },
        "deployments": [{"name": "Router", "user_config": user_config}],
    }
    return {
        "logging_config": {"enable_access_log": False},
        "applications": [router, *applications],
    }


@contextmanager
def running_site(folder: Path) -> Iterator[Cluster]:
    """Bring it up with the project's own launcher, and down again."""
    checkpoints = build_tiny_checkpoints(cache_folder() / "tests")
    config = configuration(folder, checkpoints)
    with launched(config, folder, checkpoints, "--num-gpus=2 --num-cpus=2", {}) as cluster:
        cluster.wait_until_ready()
        yield cluster
