"""Embeddings, ranks and scores: asked by name, and never of a model that generates."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest
from fake_serve import (
    ACCURATE,
    FRUGAL,
    HANG,
    Model,
    ServeDouble,
    Site,
    bearing,
    error_object,
    observation,
)

from deployments.links.frames import encode_observation
from deployments.replica.engine.capabilities import NOT_GENERATED, NOT_POOLED
from scheduler.capabilities import Feature

EMBEDDER = "embedder"
GENERATING = {"lacks": {feature.value: reason for feature, reason in NOT_POOLED.items()}}
POOLING = {"lacks": {"chat": NOT_GENERATED, "completion": NOT_GENERATED}}
ANSWER = {"object": "list", "data": [{"index": 0, "embedding": [0.5]}], "usage": {}}
BODIES: dict[str, dict[str, Any]] = {
    "/v1/embeddings": {"input": ["one", "two", "three"]},
    "/v1/rerank": {"query": "one", "documents": ["two", "three", ""]},
    "/v1/score": {"text_1": "one", "text_2": ["two", "three", {"content": []}]},
}


def configure(site: Site, **more: Any) -> None:
    models = [{"id": ACCURATE}, {"id": FRUGAL}, {"id": EMBEDDER, "wake": True}]
    site.configure(models=models, **more)


def with_embedder(serve: ServeDouble, site: Site) -> Site:
    """Two models that generate, and one that does not."""
    for model in serve.models.values():
        model.capabilities = GENERATING
        model.replicas = 0
    embedder = serve.models[EMBEDDER] = Model(EMBEDDER, capabilities=POOLING)
    seen = replace(observation(EMBEDDER), output_tokens=0, ttft_s=None)
    embedder.reply = (200, json.dumps(ANSWER).encode(), encode_observation(seen))
    site.wait_until(lambda health: not any(m["available"] for m in health["models"].values()))
    serve.models[ACCURATE].replicas = serve.models[FRUGAL].replicas = 1
    configure(site, aliases={"small": EMBEDDER, "any": "auto"})
    site.wait_until(lambda health: all(m["available"] for m in health["models"].values()))
    return site


@pytest.fixture
def pooling(serve: ServeDouble, site: Site) -> Site:
    return with_embedder(serve, site)


@pytest.fixture
def patient(serve: ServeDouble, start_site: Callable[..., Site]) -> Site:
    """One that waits for a model that starts."""
    return with_embedder(serve, start_site(request_timeout_s=5))


def ask(site: Site, path: str = "/v1/embeddings", **body: Any) -> httpx.Response:
    headers = body.pop("headers", {})
    body = {"model": EMBEDDER} | (BODIES[path] | body)
    return site.request("POST", path, json=body, headers=headers)


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("name", [EMBEDDER, "small"])
def test_a_model_that_is_named_answers(
    pooling: Site, serve: ServeDouble, path: str, name: str
) -> None:
    response = ask(pooling, path, model=name)
    assert response.status_code == 200, response.text
    answer = response.json()
    assert answer["data"] == ANSWER["data"]
    assert response.headers["x-routed-model"] == EMBEDDER
    routing = answer["routing"]
    assert (routing["policy"], routing["predicted"]) == ("pinned", None)
    assert routing["actual"] == {"output_tokens": 0, "runtime_s": 0.25, "energy_joules": 1.5}
    (call,) = serve.models[EMBEDDER].calls
    assert call.request.endpoint == path.removeprefix("/v1/")
    # Each of the three is a sequence of the engine.
    assert call.request.sequences == 3
    assert "routing" not in json.loads(call.request.body)
    record = pooling.get(f"/v1/decisions/{routing['decision_id']}")
    assert (record["task"], record["error"]) == (path.removeprefix("/v1/"), None)


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("name", ["auto", "any", None])
def test_auto_chooses_none(pooling: Site, path: str, name: str | None) -> None:
    response = ask(pooling, path, model=name)
    error = response.json()["error"]
    assert (response.status_code, error["param"], error["code"]) == (400, "model", "invalid_value")
    assert error["message"].endswith(f"these do it: {EMBEDDER}")


@pytest.mark.parametrize("path", BODIES)
def test_a_model_that_generates_says_what_it_lacks(pooling: Site, path: str) -> None:
    error = ask(pooling, path, model=FRUGAL).json()["error"]
    assert (error["code"], error["param"]) == ("not_supported", "model")
    feature = Feature.EMBEDDINGS if path == "/v1/embeddings" else Feature.SCORES
    assert NOT_POOLED[feature] in error["message"]
    assert ask(pooling, path, model="gpt").status_code == 404


@pytest.mark.parametrize(
    ("path", "field", "given"),
    [
        ("/v1/chat/completions", "messages", [{"role": "user", "content": "Hi"}]),
        ("/v1/completions", "prompt", "Hi"),
        ("/v1/route", "messages", [{"role": "user", "content": "Hi"}]),
        ("/v1/route", "prompt", "Hi"),
    ],
)
def test_a_pooling_model_is_asked_for_no_text(
    pooling: Site, serve: ServeDouble, path: str, field: str, given: Any
) -> None:
    body = {field: given}
    named = pooling.request("POST", path, json={"model": EMBEDDER} | body)
    error = named.json()["error"]
    assert (named.status_code, error["code"], error["param"]) == (400, "not_supported", field)
    assert NOT_GENERATED in error["message"]
    chosen = pooling.request("POST", path, json={"model": "auto"} | body)
    assert chosen.status_code == 200, chosen.text
    if path == "/v1/route":
        (excluded,) = chosen.json()["excluded"]
        assert (excluded["model"], excluded["kind"]) == (EMBEDDER, "capability")
    assert not serve.models[EMBEDDER].calls


@pytest.mark.parametrize(
    ("path", "change", "field"),
    [
        ("/v1/embeddings", {"input": None}, "input"),
        ("/v1/embeddings", {"input": ""}, "input"),
        ("/v1/embeddings", {"input": []}, "input"),
        ("/v1/embeddings", {"input": ["x", ""]}, "input"),
        ("/v1/embeddings", {"input": ["x", 3]}, "input"),
        ("/v1/embeddings", {"input": [[]]}, "input"),
        ("/v1/embeddings", {"input": {"a": 1}}, "input"),
        ("/v1/embeddings", {"input": ["x"] * 5}, "input"),
        ("/v1/embeddings", {"encoding_format": "bytes"}, "encoding_format"),
        ("/v1/embeddings", {"model": 3}, "model"),
        ("/v1/embeddings", {"routing": {"wat": 1}}, "routing.wat"),
        ("/v1/embeddings", {"priority": 3}, "priority"),
        ("/v1/embeddings", {"mm_processor_kwargs": {}}, "mm_processor_kwargs"),
        ("/v1/rerank", {"query": None}, "query"),
        ("/v1/rerank", {"query": ["x"]}, "query"),
        ("/v1/rerank", {"documents": None}, "documents"),
        ("/v1/rerank", {"documents": []}, "documents"),
        ("/v1/rerank", {"documents": ["x", 3]}, "documents.1"),
        ("/v1/rerank", {"documents": ["x"] * 5}, "documents"),
        ("/v1/rerank", {"query": "", "documents": ["", ""]}, "documents"),
        ("/v1/score", {"text_1": []}, "text_1"),
        ("/v1/score", {"text_2": None}, "text_2"),
        ("/v1/score", {"text_2": 3}, "text_2"),
        ("/v1/score", {"text_1": ["a", "b"], "text_2": "c"}, "text_1"),
        ("/v1/score", {"text_1": ["a", "b"], "text_2": ["c"] * 3}, "text_1"),
        ("/v1/score", {"queries": "x", "items": [3]}, "items.0"),
    ],
)
def test_what_is_wrong_is_named(
    pooling: Site, serve: ServeDouble, path: str, change: dict[str, Any], field: str
) -> None:
    configure(pooling, limits={"inputs": 4})
    response = ask(pooling, path, **change)
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (400, field), response.text
    assert error["message"].startswith(field)
    assert not serve.models[EMBEDDER].calls


@pytest.mark.parametrize("given", ["x", [1, 2], ["x", "y"], [[1, 2], [3]]])
def test_every_form_of_an_input(pooling: Site, serve: ServeDouble, given: Any) -> None:
    assert ask(pooling, input=given).status_code == 200
    sequences = serve.models[EMBEDDER].calls[-1].request.sequences
    assert sequences == (2 if isinstance(given, list) and given[0] != 1 else 1)


def test_the_engines_word_comes_with_its_field(pooling: Site, serve: ServeDouble) -> None:
    serve.models[EMBEDDER].reply = (400, error_object(400, "no Matryoshka"), b"")
    response = ask(pooling, dimensions=3)
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["message"]) == (
        400,
        "rejected_by_engine",
        "no Matryoshka",
    )
    assert len(serve.models[EMBEDDER].calls) == 1
    serve.models[EMBEDDER].reply = (501, error_object(501), b"")
    assert ask(pooling).json()["error"]["code"] == "unsupported"


def test_a_model_at_0_replicas_is_woken_or_503(patient: Site, serve: ServeDouble) -> None:
    embedder = serve.models[EMBEDDER]
    embedder.replicas, embedder.wakes = 0, True
    patient.wait_until(lambda health: not health["models"][EMBEDDER]["available"])
    assert ask(patient).status_code == 200
    embedder.replicas, embedder.wakes = 0, False
    patient.configure(models=[{"id": ACCURATE}, {"id": EMBEDDER}])
    patient.wait_until(lambda health: not health["models"][EMBEDDER]["available"])
    assert ask(patient).json()["error"]["code"] == "no_model_available"


def test_auto_wakes_only_what_generates(patient: Site, serve: ServeDouble) -> None:
    for model in serve.models.values():
        model.replicas, model.wakes = 0, True
    models = [{"id": EMBEDDER, "wake": True}, {"id": FRUGAL, "wake": True}]
    patient.configure(models=models)
    patient.wait_until(lambda health: not any(m["available"] for m in health["models"].values()))
    assert patient.complete().json()["model"] == FRUGAL
    assert serve.models[EMBEDDER].replicas == 0


def test_auto_wakes_although_a_pooling_model_is_up(patient: Site, serve: ServeDouble) -> None:
    serve.models[FRUGAL].replicas, serve.models[FRUGAL].wakes = 0, True
    patient.configure(models=[{"id": EMBEDDER}, {"id": FRUGAL, "wake": True}])
    patient.wait_until(lambda health: not health["models"][FRUGAL]["available"])
    assert patient.complete().json()["model"] == FRUGAL


def test_it_shows_without_a_fault(pooling: Site) -> None:
    health = pooling.get("/health")
    assert (health["status"], health["faults"]) == ("ok", [])
    state = health["models"][EMBEDDER]
    assert (state["available"], state["generates"], state["profile"]) == (True, False, None)
    assert health["models"][FRUGAL]["generates"] is True
    assert EMBEDDER not in {p["model"] for p in pooling.get("/v1/profiles")["profiles"]}
    assert pooling.get(f"/v1/models/{EMBEDDER}")["capabilities"] == POOLING
    assert EMBEDDER in {model["model"] for model in pooling.get("/v1/live")["models"]}


def test_nothing_is_learnt_of_it(pooling: Site) -> None:
    assert ask(pooling, input="one").status_code == 200
    counts = pooling.get("/health")["models"][EMBEDDER]["input_tokens"]
    assert (counts["counted"], counts["estimated"], counts["estimate_error"]) == (0, 0, None)
    assert pooling.shared.learning.lessons == 0


def test_the_same_key_is_answered_once(pooling: Site, serve: ServeDouble) -> None:
    first, second = (ask(pooling, headers={"Idempotency-Key": "k"}) for _ in range(2))
    assert first.content == second.content
    assert second.headers["idempotent-replayed"] == "true"
    assert len(serve.models[EMBEDDER].calls) == 1


@pytest.mark.parametrize("site", [{"request_timeout_s": 1.0}], indirect=True)
def test_a_request_that_takes_too_long_is_cancelled(pooling: Site, serve: ServeDouble) -> None:
    serve.models[EMBEDDER].reply = HANG
    assert ask(pooling).status_code == 504
    assert serve.models[EMBEDDER].calls[0].response.cancelled


def test_its_tokens_are_charged(keyed: Site, serve: ServeDouble) -> None:
    serve.models[FRUGAL].capabilities = POOLING
    body = {"model": FRUGAL, "input": "one"}
    response = keyed.request("POST", "/v1/embeddings", json=body, **bearing("ann"))
    assert response.status_code == 200
    used = keyed.used_by("ann")
    assert (used.requests, used.tokens) == (1, 7)
    assert keyed.request("POST", "/v1/embeddings", json=body).status_code == 401


def test_a_pooling_model_does_not_hide_that_none_is_profiled(
    pooling: Site, serve: ServeDouble
) -> None:
    serve.models["new"] = Model("new", capabilities=GENERATING)
    pooling.configure(models=[{"id": "new"}, {"id": EMBEDDER}])
    pooling.wait_until(lambda health: all(m["available"] for m in health["models"].values()))
    response = pooling.complete()
    assert (response.status_code, response.json()["error"]["code"]) == (503, "no_profile")
