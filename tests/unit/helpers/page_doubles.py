"""Three models for the page, and how the tests read it."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
from axe_playwright_python.sync_playwright import Axe
from fake_serve import ACCURATE, FRUGAL, observation, profile
from playwright.sync_api import Page
from served_router import ServedRouter

from deployments.config.app import RouterArgs
from deployments.links.frames import Flag, Frame, encode_observation
from scheduler.costs.observations import Observation
from scheduler.costs.profiles import ProfileSet

MIDDLE = "middle"
MODELS = (ACCURATE, FRUGAL, MIDDLE)
PROFILES = ProfileSet(
    (
        profile(ACCURATE, 8.0, 300.0, 0.9),
        profile(FRUGAL, 1.5, 20.0, 0.6),
        profile(MIDDLE, 1.0, 120.0, 0.85),
    )
)


def chat_chunk(model: str, text: str, finish_reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish_reason}
    return b"data: " + json.dumps({"model": model, "choices": [choice]}).encode() + b"\n\n"


def as_profiled(model: str) -> Observation:
    """An answer that took what the profile says, so that no test teaches the next one drift."""
    costs = PROFILES.find(model)
    assert costs
    return replace(
        observation(model),
        input_tokens=12,
        runtime_s=costs.runtime.predict(12, 2),
        energy_joules=costs.energy.predict(12, 2),
    )


def whole_answer(model: str) -> list[Frame]:
    return [
        (chat_chunk(model, "It is <b>Paris</b>"), (1,), Flag.NONE),
        (encode_observation(as_profiled(model)), (), Flag.OBSERVATION),
        (chat_chunk(model, ".", "stop"), (2,), Flag.FINISH),
        (b"data: [DONE]\n\n", (), Flag.DONE),
    ]


def served(folder: Path) -> ServedRouter:
    """A router that knows all three models and their profiles."""
    router = ServedRouter(
        RouterArgs(data_dir=str(folder), request_timeout_s=20.0),
        models=[{"id": name} for name in MODELS],
    )

    def ready(model: dict[str, Any]) -> bool:
        return bool(model["available"] and model["profile"])

    deadline = time.monotonic() + 20
    with httpx.Client(base_url=router.url) as client:
        while time.monotonic() < deadline:
            if all(map(ready, client.get("/health").json()["models"].values())):
                return router
    router.close()
    raise AssertionError("the router knows no models")


def order(page: Page) -> list[str | None]:
    """The models that are compared, best first."""
    return [item.get_attribute("data-model") for item in page.locator("#candidates > li").all()]


def weigh(page: Page, metric: str, percent: int) -> None:
    page.locator(f"#weight-{metric}").fill(str(percent))


def serious_faults(page: Page) -> list[str]:
    """What axe-core finds that keeps somebody out."""
    violations = Axe().run(page).response["violations"]
    return [
        f"{v['id']}: {node['html']}"
        for v in violations
        if v["impact"] in ("serious", "critical")
        for node in v["nodes"]
    ]
