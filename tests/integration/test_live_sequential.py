"""The policy `sequential` on live models: an answer that was cut has the next model asked."""

from __future__ import annotations

import json
from typing import Any

import pytest
from live_cluster import Cluster

pytestmark = pytest.mark.integration

# Nearly all the weight on accuracy, so that a second model is worth its joules.
SEQUENTIAL = {
    "policy": "sequential",
    "weights": {"accuracy": 0.99, "energy": 0.01, "time": 0.0},
}
BODY = {"prompt": "Count to ten:", "max_tokens": 12, "temperature": 0, "ignore_eos": True}


def check(routing: dict[str, Any]) -> None:
    first, *_, last = routing["attempts"]
    assert len(routing["attempts"]) >= 2
    assert not first["judged"]["accepted"]
    assert first["judged"]["step"]["action"].startswith("ask ")
    assert last["judged"]["accepted"]
    assert last["model"] == routing["model"]
    assert first["judged"]["mean_logprob"] < 0
    joules = [attempt["judged"]["energy_joules"] for attempt in routing["attempts"]]
    assert routing["actual"]["energy_joules"] == pytest.approx(sum(joules))
    assert routing["actual"]["output_tokens"] == 12


def test_steps_are_reported_and_all_answers_paid_for(cluster: Cluster) -> None:
    response = cluster.post("/v1/completions", model="auto", routing=SEQUENTIAL, **BODY)
    answer = response.json()
    assert response.headers["x-routed-model"] == answer["model"] == answer["routing"]["model"]
    assert answer["choices"][0].get("logprobs") is None
    check(answer["routing"])


def test_a_stream_is_of_one_model_only(cluster: Cluster) -> None:
    response = cluster.post(
        "/v1/completions", model="auto", routing=SEQUENTIAL, stream=True, **BODY
    )
    *lines, end = (
        line[6:] for line in response.text.split("\n\n") if line and not line.startswith(":")
    )
    assert end == "[DONE]"
    chunks = [json.loads(line) for line in lines]
    assert len({chunk["model"] for chunk in chunks}) == 1
    check(chunks[-1]["routing"])
