"""Requests that an engine cannot digest cost their senders an error, and the others nothing."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import httpx
import psutil
import pytest
from live_cluster import Cluster

pytestmark = pytest.mark.integration

MODELS = ("tiny-mistral", "tiny-phi3")
ERROR_WITHIN_S = 15.0
"""A second or two on a quiet machine; engines may keep a client from the cores for seven more."""
CYCLE = {"$ref": "#/$defs/n", "$defs": {"n": {"$ref": "#/$defs/n"}}}
# Within the limits of the router, and slow to compile: some 1.5 s for each of them.
WIDE = {
    f"p{number}": {"type": "string", "pattern": f"^.{{1,{990 + number}}}$"} for number in range(9)
}


def schema(schema: Any) -> dict[str, Any]:
    return {
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    }


POISON: dict[str, dict[str, Any]] = {
    "a list of a billion": schema({"type": "array", "minItems": 10**9}),
    "long patterns": schema(
        {"properties": {n: {"type": "string", "pattern": "^.{1,2000}$"} for n in "abcd"}}
    ),
    "many patterns": schema({"type": "object", "properties": WIDE, "required": list(WIDE)}),
    "a reference to itself": schema(CYCLE),
    "a grammar without text": {"structured_outputs": {"grammar": "root ::= root"}},
    "a grammar that is none": {"structured_outputs": {"grammar": "root ::= (((("}},
    "a pattern that is none": {"structured_outputs": {"regex": "(((a"}},
    "deep": schema(json.loads('{"items":' * 100 + "{}" + "}" * 100)),
    "all log probabilities": {"logprobs": True, "top_logprobs": -1},
    "a connector": {"kv_transfer_params": {"do_remote_prefill": True}},
    "a structural tag": {
        "response_format": {
            "type": "structural_tag",
            "structures": [{"begin": "<a>", "schema": {"minItems": 10**9}, "end": "</a>"}],
            "triggers": ["<a"],
        }
    },
}


class Others(threading.Thread):
    """A client that asks for something ordinary all the time."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(daemon=True)
        self.url = cluster.url
        self.over = threading.Event()
        self.took_s: list[float] = []
        self.failed: list[str] = []

    def run(self) -> None:
        with httpx.Client(timeout=60) as client:
            while not self.over.is_set():
                started = time.monotonic()
                body = {"model": "auto", "prompt": "Hello", "max_tokens": 4}
                answer = client.post(f"{self.url}/v1/completions", json=body)
                self.took_s.append(time.monotonic() - started)
                if answer.status_code != 200:
                    self.failed.append(answer.text)
                self.over.wait(0.1)


def engine_cores(replica: psutil.Process) -> list[psutil.Process]:
    children = replica.children(recursive=True)
    return [child for child in children if "EngineCore" in " ".join(child.cmdline())]


def test_poison_costs_its_sender_an_error_and_the_others_nothing(cluster: Cluster) -> None:
    before = {model: [p.pid for p in cluster.replicas(model)] for model in MODELS}
    engines = {
        model: sorted(engine.pid for p in cluster.replicas(model) for engine in engine_cores(p))
        for model in MODELS
    }
    others = Others(cluster)
    others.start()
    try:
        for name, poison in POISON.items():
            for path, prompt in (
                ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}]}),
                ("/v1/completions", {"prompt": "Hi"}),
            ):
                started = time.monotonic()
                answer = cluster.post(path, model="auto", max_tokens=8, **prompt, **poison)
                took_s = time.monotonic() - started
                print(f"{name} {path}: {answer.status_code} {took_s:.2f} s {answer.text[:150]}")
                assert answer.status_code in (400, 429), answer.text
                assert answer.json()["error"]["message"]
                assert took_s < ERROR_WITHIN_S
    finally:
        others.over.set()
        others.join()
    print(f"{len(others.took_s)} others, the slowest {max(others.took_s):.2f} s")
    assert others.failed == []
    assert len(others.took_s) > 10
    assert {model: [p.pid for p in cluster.replicas(model)] for model in MODELS} == before
    for model in MODELS:
        now = {engine.pid for p in cluster.replicas(model) for engine in engine_cores(p)}
        assert set(engines[model]) <= now


@pytest.mark.parametrize("stream", [True, False])
def test_one_bad_prompt_of_several_is_the_senders_error(cluster: Cluster, stream: bool) -> None:
    for _ in range(5):
        answer = cluster.post(
            "/v1/completions", model=MODELS[0], prompt=[[1, 2], [10**9]], stream=stream
        )
        assert answer.status_code == 400, answer.text
        assert "out of vocabulary" in answer.json()["error"]["message"]


def test_ordinary_constraints_are_followed(cluster: Cluster) -> None:
    ordinary = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}
    for constraint in (
        schema(ordinary),
        schema({"type": "integer", "multipleOf": 7, "minimum": 0, "maximum": 70}),
        {"structured_outputs": {"choice": ["yes", "no"]}},
        {"structured_outputs": {"regex": "[ab]{3}"}},
        {"response_format": {"type": "json_object"}},
    ):
        answer = cluster.post(
            "/v1/chat/completions",
            model=MODELS[0],
            messages=[{"role": "user", "content": "Hi"}],
            max_tokens=16,
            **constraint,
        )
        print(answer.status_code, answer.text[:200])
        assert answer.status_code == 200, answer.text
    choice = cluster.post(
        "/v1/completions", model=MODELS[0], prompt="x", structured_outputs={"choice": ["yes", "no"]}
    )
    assert choice.json()["choices"][0]["text"] in ("yes", "no")


@pytest.mark.parametrize("stream", [True, False])
def test_what_an_answer_took_that_grew_too_costly_is_observed(
    cluster: Cluster, stream: bool
) -> None:
    # Costly only behind what a trial follows. Another one each time: a replica rejects at once what
    # has been too costly.
    name = "ab"[stream]
    growing = {"grammar": f"root ::= [0-9]{{200}} {name}\n{name} ::= {name} {name} | [a-z]"}
    answer = httpx.post(
        f"{cluster.url}/v1/completions",
        json={
            "model": MODELS[0],
            "prompt": "x",
            "max_tokens": 400,
            "stream": stream,
            "structured_outputs": growing,
        },
        headers={"X-Request-Id": f"growing-{name}"},
        timeout=60,
    )
    print(answer.status_code, answer.text[-400:])
    assert answer.status_code == (200 if stream else 400)
    assert "constraint_rejected" in answer.text
    assert "[DONE]" not in answer.text

    def records() -> list[Any]:
        found = cluster.get("/v1/decisions?limit=20")["data"]
        return [one for one in found if one["request_id"] == f"growing-{name}"]

    cluster.wait_until("it is recorded", records)
    (record,) = records()
    assert "to follow" in record["error"]
    assert record["observation"]["stopped"]
    assert record["observation"]["output_tokens"] > 64
    assert record["observation"]["energy_joules"] > 0
