"""A ladder of two live models: the first is never sure enough, and the client sees none of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from live_cluster import Cluster

pytestmark = pytest.mark.integration

CASCADE = {"policy": "cascade"}
BODY = {"prompt": "Count to ten:", "max_tokens": 12, "temperature": 0, "ignore_eos": True}


def mean_logprob(cluster: Cluster) -> float:
    """Of the first model's answer, as a client that asks for it gets it."""
    answer = cluster.post("/v1/completions", model="tiny-mistral", logprobs=1, **BODY).json()
    logprobs: list[float] = answer["choices"][0]["logprobs"]["token_logprobs"]
    return sum(logprobs) / len(logprobs)


def check(routing: dict[str, Any], expected: float) -> None:
    rejected, accepted = routing["attempts"]
    assert (rejected["model"], accepted["model"]) == ("tiny-mistral", "tiny-phi3")
    judged = rejected["judged"]
    assert not judged["accepted"]
    # float32, decoded greedily: the same answer each time.
    assert judged["mean_logprob"] == pytest.approx(expected, abs=0.01)
    assert routing["actual"]["runtime_s"] > judged["runtime_s"]
    assert routing["actual"]["energy_joules"] > judged["energy_joules"]
    assert routing["actual"]["output_tokens"] == 12


def test_an_answer_that_is_not_sure_enough_comes_from_the_next_model(cluster: Cluster) -> None:
    response = cluster.post("/v1/completions", model="auto", routing=CASCADE, **BODY)
    assert response.headers["x-routed-model"] == "tiny-phi3"
    answer = response.json()
    assert answer["model"] == "tiny-phi3"
    assert answer["choices"][0].get("logprobs") is None
    assert answer["usage"]["completion_tokens"] == 12
    check(answer["routing"], mean_logprob(cluster))


def test_a_stream_is_of_one_model_only(cluster: Cluster) -> None:
    response = cluster.post("/v1/completions", model="auto", routing=CASCADE, stream=True, **BODY)
    *lines, end = (
        line[6:] for line in response.text.split("\n\n") if line and not line.startswith(":")
    )
    assert end == "[DONE]"
    chunks = [json.loads(line) for line in lines]
    assert {chunk["model"] for chunk in chunks} == {"tiny-phi3"}
    assert len(chunks) == 12
    assert all(chunk["choices"][0].get("logprobs") is None for chunk in chunks)
    check(chunks[-1]["routing"], mean_logprob(cluster))
