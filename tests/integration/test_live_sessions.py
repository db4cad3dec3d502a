"""Turns of a conversation on a live model: what the first one left in the cache is not computed."""

from __future__ import annotations

from typing import Any

import pytest
from live_cluster import Cluster

pytestmark = pytest.mark.integration

FRUGAL = {"weights": {"energy": 1}}


def ask(cluster: Cluster, messages: list[dict[str, Any]], **more: Any) -> tuple[Any, Any]:
    """The answer and its record."""
    response = cluster.post(
        "/v1/chat/completions",
        model="auto",
        messages=messages,
        max_tokens=8,
        routing=FRUGAL,
        **more,
    )
    assert response.status_code == 200, response.text
    decision_id = response.headers["x-decision-id"]
    return response.json(), cluster.get(f"/v1/decisions/{decision_id}")


def test_the_second_turn_finds_the_first_one_in_the_cache(cluster: Cluster) -> None:
    words = " ".join(f"word{number}" for number in range(90))
    messages = [{"role": "user", "content": f"Remember these: {words}"}]
    answer, first = ask(cluster, messages)
    assert first["observation"]["cached_input_tokens"] == 0
    assert first["session"]["model"] is None
    messages += [
        answer["choices"][0]["message"] | {"role": "assistant"},
        {"role": "user", "content": "Which one was the third?"},
    ]
    messages = [{"role": m["role"], "content": m["content"]} for m in messages]
    answer, second = ask(cluster, messages)
    assert second["session"] == answer["routing"]["session"]
    assert second["session"]["id"] == first["session"]["id"]
    assert second["session"]["model"] == first["model"]
    # Blocks of 128 tokens on CPUs.
    assert second["session"]["cached_tokens"] >= 128
    (kept,) = (c for c in second["candidates"] if c["model"] == first["model"])
    assert kept["cached_input_tokens"] == second["session"]["cached_tokens"]
    if second["session"]["stayed"]:
        assert second["observation"]["cached_input_tokens"] >= 128
        assert second["observation"]["replica_id"] == first["observation"]["replica_id"]
