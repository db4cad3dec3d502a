"""Input tokens over HTTP: counted, told in the decision, and compared with the engine's."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
from fake_serve import ACCURATE, FRUGAL, ServeDouble, Site, observation
from small_tokenizer import bundle

from deployments.links.frames import encode_observation
from deployments.router.tokens.model_tokenizer import ModelTokenizer
from deployments.router.tokens.prompts import Prompt

PROMPT = "the lazy dog"
TOKENS = ModelTokenizer(bundle()).count(Prompt({"prompt": PROMPT}, len(PROMPT)))


@pytest.fixture
def counting(site: Site, serve: ServeDouble) -> Site:
    """The accurate model hands over its tokenizer; the frugal one has none."""
    model = serve.models[ACCURATE]
    model.bundle, model.replicas = bundle(), 0
    site.wait_until(lambda health: not health["models"][ACCURATE]["available"])
    model.replicas = 1
    site.wait_until(lambda health: health["models"][ACCURATE]["input_tokens"]["fault"] is None)
    return site


def inputs(decision: Any) -> dict[str, tuple[int, bool]]:
    return {
        c["model"]: (c["input_tokens"], c["input_tokens_exact"]) for c in decision["candidates"]
    }


def test_a_decision_says_what_was_counted_and_what_was_estimated(counting: Site) -> None:
    decision = counting.request(
        "POST", "/v1/route", json={"model": "auto", "prompt": PROMPT}
    ).json()
    assert inputs(decision) == {ACCURATE: (TOKENS, True), FRUGAL: (3, False)}
    answered = counting.complete(prompt=PROMPT, routing={"weights": {"accuracy": 1}})
    record = counting.get(f"/v1/decisions/{answered.headers['x-decision-id']}")
    assert inputs(record) == inputs(decision)


def test_health_tells_how_prompts_are_counted(counting: Site, serve: ServeDouble) -> None:
    seen = replace(observation(ACCURATE), input_tokens=TOKENS)
    answer = json.dumps({"object": "text_completion", "model": ACCURATE}).encode()
    serve.models[ACCURATE].reply = (200, answer, encode_observation(seen))
    for model in (ACCURATE, FRUGAL):
        assert counting.complete(model=model, prompt=PROMPT).status_code == 200
    health = counting.get("/health")
    assert health["status"] == "ok"
    counted = health["models"][ACCURATE]["input_tokens"]
    assert [counted[n] for n in ("tokenizer", "counted", "miscounted", "estimated")] == [
        bundle().digest(), 1, 0, 0,
    ]  # fmt: skip
    assert counted["estimate_error"] == pytest.approx(abs(3 - TOKENS) / TOKENS)
    estimated = health["models"][FRUGAL]["input_tokens"]
    assert estimated["fault"] == "no fast tokenizer"
    # Its engine counts 5, and 3 were told.
    assert [estimated[n] for n in ("counted", "estimated", "estimate_error")] == [0, 1, 0.4]


def test_long_prompts_are_estimated(counting: Site) -> None:
    models = [{"id": ACCURATE}, {"id": FRUGAL}]
    counting.configure(models=models, exact_count_bytes=100)
    body = {"model": ACCURATE, "prompt": "x" * 99}
    decision = counting.request("POST", "/v1/route", json=body).json()
    assert inputs(decision) == {ACCURATE: (25, False)}


def test_the_router_needs_none_of_the_big_libraries() -> None:
    code = (
        "import sys, deployments.router; "
        "print(sorted({'torch', 'vllm', 'transformers'} & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.strip() == "[]"
