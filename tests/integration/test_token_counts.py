"""What the router counted before it sent a request, against what live engines report afterwards."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import conversations
import httpx
import pytest
from live_cluster import Cluster

pytestmark = pytest.mark.integration

REQUESTS = 300
MODELS = ("tiny-phi3", "tiny-mistral")


def reports(cluster: Cluster) -> dict[str, Any]:
    models = cluster.get("/health")["models"]
    return {model: models[model]["input_tokens"] for model in MODELS}


def test_random_prompts_have_as_many_tokens_as_was_counted(cluster: Cluster) -> None:
    cluster.wait_until(
        "the tokenizers are there",
        lambda: all(report["fault"] is None for report in reports(cluster).values()),
        60,
    )
    before = reports(cluster)
    assert before["tiny-phi3"]["tokenizer"] == before["tiny-mistral"]["tokenizer"]
    rng = random.Random(5)
    jobs = []
    for number in range(REQUESTS):
        chat = number % 3 > 0
        body = conversations.chat(rng) if chat else conversations.completion(rng)
        path = "/v1/chat/completions" if chat else "/v1/completions"
        jobs.append((path, {"model": MODELS[number % 2], "max_tokens": 1, **body}))

    with httpx.Client(base_url=cluster.url, timeout=60) as client:

        def ask(job: tuple[str, dict[str, Any]]) -> httpx.Response:
            return client.post(job[0], json=job[1])

        with ThreadPoolExecutor(8) as threads:
            answers = list(threads.map(ask, jobs))
        compared = 0
        for answer, (_, body) in zip(answers, jobs, strict=True):
            if answer.status_code != 200:
                # Longer than the context of 512 tokens, or roles that the template refuses.
                assert answer.status_code == 400, answer.text
                continue
            record = client.get(f"/v1/decisions/{answer.headers['x-decision-id']}").json()
            (candidate,) = record["candidates"]
            assert candidate["input_tokens_exact"], body
            assert candidate["input_tokens"] == answer.json()["usage"]["prompt_tokens"], body
            compared += 1
    assert compared > REQUESTS // 2
    for model, report in reports(cluster).items():
        assert report["miscounted"] == 0
        assert report["counted"] > before[model]["counted"]
        assert report["estimate_error"] is not None


def test_what_is_no_text_is_estimated(cluster: Cluster) -> None:
    body = {"model": "tiny-phi3", "prompt": "x", "max_tokens": 1, "truncate_prompt_tokens": -1}
    answer = cluster.post("/v1/completions", **body)
    assert answer.status_code == 200, answer.text
    record = cluster.get(f"/v1/decisions/{answer.headers['x-decision-id']}")
    assert not record["candidates"][0]["input_tokens_exact"]
