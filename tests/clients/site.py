"""The service that the clients talk to: a tiny model that can be made to call tools.

Its weights are random, so that a grammar makes it call: `tool_choice` names the tool or requires
one, and the arguments are of an `enum`. What coding agents send has tens of thousands of tokens, so
that its context is long. Many of its tokens end an answer: random weights hardly ever choose one.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from live_cluster import Cluster, launched, model_application, prior
from tiny_checkpoints import build_tiny_checkpoints
from tokenizers import Tokenizer

from deployments.demo_models.catalog import cache_folder

MODEL = "tiny-mistral"
CONTEXT = 65_536
ENVIRONMENT = {"VLLM_ENFORCE_STRICT_TOOL_CALLING": "0"}
"""Else the parser's own grammar has noise write spaces for ever, see `configuration`."""
RARE = 47_000
"""Ids of tokens from here on are of long words."""


def configuration(folder: Path, checkpoints: dict[str, Path], replicas: int = 1) -> dict[str, Any]:
    """The YAML: the model, an alias, contents recorded, tools on."""
    prior_file = folder / "prior.json"
    prior_file.write_text(prior().to_json())
    checkpoint = that_ends(checkpoints[MODEL], folder / MODEL)
    application = model_application(MODEL, checkpoint, "float32", 0.5)
    application["args"]["scaling"] = {"mode": "fixed", "num_replicas": replicas}
    application["args"]["engine_kwargs"] |= {
        "enable_auto_tool_choice": True,
        "tool_call_parser": "hermes",
        "max_model_len": CONTEXT,
        "hf_overrides": {"max_position_embeddings": CONTEXT},
        "kv_cache_memory_bytes": 384 * 2**20,
        "max_num_seqs": 8,
        # Else a grammar lets noise write spaces for ever.
        "structured_outputs_config": {"backend": "xgrammar", "disable_any_whitespace": True},
    }
    user_config = {
        "prior_profiles": str(prior_file),
        "models": [{"id": MODEL}],
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
        "applications": [router, application],
    }


def that_ends(checkpoint: Path, copy: Path) -> Path:
    """The checkpoint with other ends: rare tokens with a space, which no tool call has."""
    shutil.copytree(checkpoint, copy)
    vocabulary = Tokenizer.from_file(str(copy / "tokenizer.json")).get_vocab()
    ends = sorted(i for token, i in vocabulary.items() if i >= RARE and token.startswith("Ġ"))
    path = copy / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token_id": [2, *ends]}))
    return copy


@contextmanager
def running_site(folder: Path, replicas: int = 1) -> Iterator[Cluster]:
    """Bring it up with the project's own launcher, and down again."""
    checkpoints = build_tiny_checkpoints(cache_folder() / "tests")
    config = configuration(folder, checkpoints, replicas)
    with launched(config, folder, checkpoints, "--num-gpus=1 --num-cpus=2", ENVIRONMENT) as cluster:
        cluster.wait_until_ready()
        yield cluster
