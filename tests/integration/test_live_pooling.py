"""Embeddings, ranks and scores of real engines, next to a model that generates."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import torch
from live_cluster import Cluster, launched, model_application, prior
from tiny_checkpoints import build_tiny_checkpoints, build_tiny_scorer
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from deployments.demo_models.catalog import cache_folder

pytestmark = pytest.mark.integration

WRITER, EMBEDDER, SCORER = "tiny-phi3", "org/embedder", "scorer"
TEXTS = ["The fox jumps.", "A dog.", "Snow falls on the hills in the north."]
QUERY = "What does the fox do?"
USER = {"role": "user", "content": "Hello"}


@pytest.fixture(scope="module")
def pooling(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A model that generates, one that embeds, and a cross-encoder."""
    folder = tmp_path_factory.mktemp("pooling")
    cache = cache_folder() / "tests"
    checkpoints = build_tiny_checkpoints(cache)
    exact = build_tiny_checkpoints(cache, torch.float32)
    checkpoints |= {EMBEDDER: exact["tiny-mistral"], SCORER: build_tiny_scorer(cache)}
    (folder / "prior.json").write_text(prior().to_json())
    applications = [model_application(WRITER, checkpoints[WRITER])]
    for model, convert in ((EMBEDDER, "embed"), (SCORER, "classify")):
        application = model_application(model, checkpoints[model], "float32")
        application["name"] = model.replace("/", "--")
        application["args"]["engine_kwargs"] |= {"runner": "pooling", "convert": convert}
        applications.append(application)
    router = {
        "name": "router",
        "route_prefix": "/",
        "import_path": "deployments.app:build_router",
        "args": {"data_dir": str(folder / "data"), "num_cpus": 0.1, "request_timeout_s": 60},
        "deployments": [
            {
                "name": "Router",
                "user_config": {
                    "prior_profiles": str(folder / "prior.json"),
                    "models": [{"id": WRITER}, {"id": EMBEDDER}, {"id": SCORER}],
                    "aliases": {"text-embedding-3-small": EMBEDDER},
                    "limits": {"inputs": 64},
                },
            }
        ],
    }
    config = {
        "logging_config": {"enable_access_log": False},
        "applications": [router, *applications],
    }
    options = "--num-gpus=3 --num-cpus=2"
    with launched(config, folder, checkpoints, options, {}) as cluster:
        cluster.wait_until_ready()
        yield cluster


def embed(cluster: Cluster, texts: Any, **members: Any) -> np.ndarray[Any, Any]:
    answer = cluster.openai.embeddings.create(
        model="text-embedding-3-small", input=texts, encoding_format="float", **members
    )
    assert [item.index for item in answer.data] == list(range(len(answer.data)))
    return np.array([item.embedding for item in answer.data])


@torch.inference_mode()
def own_vectors(cluster: Cluster, texts: list[str]) -> np.ndarray[Any, Any]:
    """The last token's state, of length 1: what vLLM makes of a causal model."""
    path = cluster.checkpoints[EMBEDDER]
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModel.from_pretrained(path, dtype=torch.float32).eval()
    found = []
    for text in texts:
        states = model(torch.tensor([tokenizer(text).input_ids])).last_hidden_state
        found.append(torch.nn.functional.normalize(states[0, -1], dim=0).numpy())
    return np.array(found)


def test_the_official_client_gets_the_vectors_of_the_model(pooling: Cluster) -> None:
    vectors = embed(pooling, TEXTS)
    assert vectors.shape == (3, 128)
    np.testing.assert_allclose(vectors, own_vectors(pooling, TEXTS), atol=1e-4)
    # In the order of the batch, whatever else is in it, and as token ids too.
    np.testing.assert_allclose(embed(pooling, TEXTS[::-1])[::-1], vectors, atol=1e-5)
    tokenizer = AutoTokenizer.from_pretrained(pooling.checkpoints[EMBEDDER])
    ids = [tokenizer(text).input_ids for text in TEXTS]
    answer = pooling.openai.embeddings.create(model=EMBEDDER, input=ids, encoding_format="base64")
    for item, vector in zip(answer.data, vectors, strict=True):
        decoded = np.frombuffer(base64.b64decode(str(item.embedding)), dtype="<f4")
        np.testing.assert_allclose(decoded, vector, atol=1e-5)
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == sum(map(len, ids))
    # It asks for base64 where nothing is said, and decodes that itself.
    (default,) = pooling.openai.embeddings.create(model=EMBEDDER, input=TEXTS[1]).data
    np.testing.assert_allclose(default.embedding, vectors[1], atol=1e-5)


def test_what_it_took_is_measured(pooling: Cluster) -> None:
    body = {"model": EMBEDDER, "input": [f"{text} {n}" for n in range(20) for text in TEXTS]}
    answer = pooling.post("/v1/embeddings", **body).json()
    routing, tokens = answer["routing"], answer["usage"]["prompt_tokens"]
    assert answer["id"] == f"embd-{routing['decision_id']}"
    assert answer["model"] == EMBEDDER
    assert (routing["policy"], routing["predicted"]) == ("pinned", None)
    assert routing["actual"]["output_tokens"] == 0
    assert routing["actual"]["runtime_s"] > 0
    assert routing["actual"]["energy_joules"] > 0
    record = pooling.get(f"/v1/decisions/{routing['decision_id']}")
    assert record["observation"]["input_tokens"] == tokens
    assert record["task"] == "embeddings"


def test_a_client_that_leaves_stops_the_engine(pooling: Cluster) -> None:
    body = {"model": EMBEDDER, "input": [f"{n} " + "the fox " * 200 for n in range(64)]}
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{pooling.url}/v1/embeddings", json=body, timeout=0.4)

    def latest() -> Any:
        return pooling.get("/v1/decisions?limit=1")["data"][0]

    pooling.wait_until("it is recorded", lambda: latest()["error"] == "the client went away", 30)
    seen = latest()["observation"]
    assert seen["stopped"]
    assert seen["input_tokens"] > 0
    assert pooling.get("/health")["models"][EMBEDDER]["ongoing"] == 0
    np.testing.assert_allclose(
        embed(pooling, TEXTS[0])[0], own_vectors(pooling, TEXTS[:1])[0], atol=1e-4
    )


@torch.inference_mode()
def own_scores(cluster: Cluster) -> list[float]:
    path = cluster.checkpoints[SCORER]
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModelForSequenceClassification.from_pretrained(path, dtype=torch.float32).eval()
    scores = []
    for text in TEXTS:
        ids = torch.tensor([tokenizer(QUERY, text).input_ids])
        scores.append(float(torch.sigmoid(model(ids).logits[0, 0])))
    return scores


def test_scores_and_ranks(pooling: Cluster) -> None:
    answer = pooling.post("/v1/score", model=SCORER, text_1=QUERY, text_2=TEXTS).json()
    scores = [item["score"] for item in answer["data"]]
    np.testing.assert_allclose(scores, own_scores(pooling), atol=1e-4)
    body = {"model": SCORER, "query": QUERY, "documents": TEXTS}
    ranked = pooling.post("/v1/rerank", **body).json()
    results = ranked["results"]
    order = sorted(range(3), key=lambda index: -scores[index])
    assert [result["index"] for result in results] == order
    assert [result["document"]["text"] for result in results] == [TEXTS[i] for i in order]
    assert ranked["usage"]["prompt_tokens"] == answer["usage"]["prompt_tokens"] > 0
    (best,) = pooling.post("/v1/rerank", **body, top_n=1).json()["results"]
    assert best["index"] == order[0]
    # A model that embeds scores too, by the angle.
    similar = pooling.post("/v1/score", model=EMBEDDER, text_1=QUERY, text_2=[QUERY, *TEXTS])
    assert similar.json()["data"][0]["score"] == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(
    ("path", "body", "code", "field"),
    [
        ("embeddings", {"model": "auto", "input": "x"}, "invalid_value", "model"),
        ("embeddings", {"input": "x"}, "invalid_value", "model"),
        ("embeddings", {"model": WRITER, "input": "x"}, "not_supported", "model"),
        ("embeddings", {"model": SCORER, "input": "x"}, "not_supported", "model"),
        ("score", {"model": WRITER, "text_1": "x", "text_2": "y"}, "not_supported", "model"),
        ("embeddings", {"model": EMBEDDER, "input": "x", "dimensions": 8}, None, "dimensions"),
        ("embeddings", {"model": EMBEDDER, "input": "the fox " * 400}, None, "input"),
        ("embeddings", {"model": EMBEDDER, "input": "x", "dimensions": "a"}, None, "dimensions"),
        ("embeddings", {"model": EMBEDDER, "input": ["x"] * 65}, "limit_exceeded", "input"),
        ("embeddings", {"model": EMBEDDER, "input": [[999_999]]}, None, "input"),
        ("rerank", {"model": SCORER, "query": "x", "documents": []}, "invalid_value", "documents"),
        ("chat/completions", {"model": EMBEDDER, "messages": [USER]}, "not_supported", "messages"),
        ("completions", {"model": SCORER, "prompt": "x"}, "not_supported", "prompt"),
    ],
)
def test_what_is_wrong_is_400(
    pooling: Cluster, path: str, body: dict[str, Any], code: str | None, field: str | None
) -> None:
    response = pooling.post(f"/v1/{path}", **body)
    error = response.json()["error"]
    assert response.status_code == 400, response.text
    assert error["code"] == (code or "rejected_by_engine"), error
    if field:
        assert error["param"] == field


def test_auto_leaves_them_out_and_nothing_is_degraded(pooling: Cluster) -> None:
    with pytest.raises(openai.NotFoundError):
        pooling.openai.embeddings.create(model="none", input="x")
    dry = pooling.post("/v1/route", model="auto", messages=[USER]).json()
    assert dry["model"] == WRITER
    assert {e["model"]: e["kind"] for e in dry["excluded"]} == {
        EMBEDDER: "capability",
        SCORER: "capability",
    }
    chat = pooling.post("/v1/chat/completions", model="auto", messages=[USER], max_tokens=2)
    assert chat.headers["x-routed-model"] == WRITER
    health = pooling.get("/health")
    assert (health["status"], health["faults"]) == ("ok", [])
    assert [m["generates"] for m in health["models"].values()] == [True, False, False]
    # Its tokenizer is there as well.
    counted = pooling.post("/tokenize", model=EMBEDDER, prompt=TEXTS[0]).json()
    tokenizer = AutoTokenizer.from_pretrained(pooling.checkpoints[EMBEDDER])
    assert counted["tokens"] == tokenizer(TEXTS[0]).input_ids
    status = pooling.run("python", "-m", "cluster", "status", "--address", pooling.dashboard)
    assert status.returncode == 0, status.stdout + status.stderr
    assert SCORER in status.stdout
