"""What must hold of a running site: asserted by the tests and by the visit alike."""

from __future__ import annotations

import json
import signal
from collections import Counter
from typing import Any

import httpx
from gpu.visit.site import Site

TOKENS = 300
KILL_AFTER = 30
BACK_WITHIN_S = 240.0
SCALED_WITHIN_S = 300
IDLE_WITHIN_S = 30.0
PROMPT = [{"role": "user", "content": "Count the planets."}]
TOOL = {
    "type": "function",
    "function": {
        "name": "set_unit",
        "description": "Choose the unit of temperatures.",
        "parameters": {
            "type": "object",
            "properties": {"unit": {"type": "string", "enum": ["celsius", "kelvin"]}},
            "required": ["unit"],
            "additionalProperties": False,
        },
    },
}


def check_health(site: Site) -> dict[str, Any]:
    """Every model is available, and nothing is wrong."""
    health = site.cluster.get("/health")
    assert health["status"] == "ok", health
    assert health["faults"] == [], health["faults"]
    assert all(health["models"][model]["available"] for model in site.models)
    return {"status": health["status"], "models": health["models"]}


def check_placement(site: Site) -> dict[str, Any]:
    """Each replica reserves its part, and computes on the GPU that it was given.

    On GPUs the device is the one that CUDA reports in the engine's worker. In a rehearsal it is the
    CPU, and only what Ray reserves can be looked at.
    """
    share = site.layout.share
    listed = site.cluster.run("ray", "list", "placement-groups", "--detail", "--format", "json")
    groups = json.loads(listed.stdout[listed.stdout.index("[") :])
    bundles = [
        bundle["unit_resources"]
        for group in groups
        if group["state"] == "CREATED"
        for bundle in group["bundles"]
    ]
    reserved = [bundle["GPU"] for bundle in bundles if bundle.get("GPU")]
    assert reserved == [share] * len(site.models), bundles
    devices = {replica["model"]: replica["device"] for replica in site.describe()}
    assert set(devices) == set(site.models)
    if site.layout.rehearsal:
        assert set(devices.values()) == {"cpu"}
        if share < 1:
            variable = "VLLM_RAY_PER_WORKER_GPUS"
            known = {c.environ().get(variable) for m in site.models for c in site.engine_cores(m)}
            assert known == {f"{share:g}"}
    else:
        assert set(devices.values()) <= set(site.layout.gpus)
        on_one = max(Counter(devices.values()).values())
        assert on_one * share <= 1, devices
    return {"share": share, "devices": devices}


def check_energy_source(site: Site) -> dict[str, Any]:
    """Requests are metered by the device's own counter, and by no estimate in its place."""
    sources = {}
    for model in site.models:
        response = site.cluster.post(
            "/v1/chat/completions", model=model, messages=PROMPT, max_tokens=16, ignore_eos=True
        )
        assert response.status_code == 200, response.text
        routing = response.json()["routing"]
        assert routing["actual"]["energy_joules"] > 0, routing
        assert routing["actual"]["output_tokens"] == 16
        sources[model] = routing["energy_source"]
    assert set(sources.values()) <= set(site.energy_sources), sources
    return sources


def check_idle_gauge(site: Site) -> dict[str, Any]:
    """What the devices draw with nothing to do is a metric of every model."""
    name = "ray_device_idle_power_watts"
    site.cluster.wait_until(
        "the gauge is there", lambda: len(site.gauge(name)) >= len(site.models), IDLE_WITHIN_S
    )
    watts = site.gauge(name)
    assert all(drawn >= 0 for drawn in watts.values()), watts
    return watts


def check_streams(site: Site) -> dict[str, Any]:
    """Answers come in pieces, whole, with their costs at the end."""
    pieces = {}
    for model in site.models:
        events = stream(site, model, "One", max_tokens=40)
        assert events[-1] == "[DONE]"
        finish = [c["finish_reason"] for e in events[:-1] for c in e.get("choices", ())]
        assert [reason for reason in finish if reason] == ["length"]
        assert events[-2]["usage"]["completion_tokens"] == 40
        assert events[-2]["routing"]["actual"]["energy_joules"] > 0
        pieces[model] = sum(1 for e in events[:-1] if e.get("choices"))
        # Tokens may come together where the client is slower than the engine.
        assert pieces[model] >= 10
    return pieces


def check_tools(site: Site) -> dict[str, Any]:
    """A named tool is called with arguments that fit its schema, whatever the weights."""
    called = {}
    for model in site.models:
        response = site.cluster.post(
            "/v1/chat/completions",
            model=model,
            messages=PROMPT,
            max_tokens=64,
            tools=[TOOL],
            tool_choice={"type": "function", "function": {"name": "set_unit"}},
        )
        assert response.status_code == 200, response.text
        (choice,) = response.json()["choices"]
        calls = choice["message"].get("tool_calls")
        assert calls, choice
        assert calls[0]["function"]["name"] == "set_unit"
        arguments = json.loads(calls[0]["function"]["arguments"])
        assert arguments["unit"] in ("celsius", "kelvin")
        called[model] = arguments
    return called


def check_failover(site: Site) -> dict[str, Any]:
    """An engine core is killed in the middle of a stream: another model goes on, and it comes back.

    Returns:
        Seconds until the model was available again.
    """
    killed, other = site.models[0], site.models[-1]
    routing = {"models": [killed, other], "weights": {"accuracy": 1}}
    seen: list[Any] = []

    def kill(events: list[Any]) -> None:
        model = str(events[0]["model"])
        seen.append(model)
        for core in site.engine_cores(model):
            core.send_signal(signal.SIGKILL)

    events = stream(site, "auto", "It was", max_tokens=TOKENS, on_event=kill, routing=routing)
    assert events[-1] == "[DONE]", events[-1]
    last = events[-2]
    assert last["usage"]["completion_tokens"] == TOKENS, last
    attempts = last["routing"]["attempts"]
    assert len(attempts) >= 2, attempts
    assert attempts[-1]["model"] != seen[0], attempts
    answer = site.cluster.post(
        "/v1/completions", model="auto", prompt="x", max_tokens=4, routing=routing
    )
    assert answer.status_code == 200, answer.text

    def back() -> bool:
        return bool(site.health(seen[0])["available"]) and len(site.engine_cores(seen[0])) == 1

    site.cluster.wait_until("the model is back", back, BACK_WITHIN_S)
    return {"killed": seen[0], "attempts": attempts}


def check_scaling(site: Site) -> dict[str, Any]:
    """One replica more and back; both share a GPU where there is one only."""
    model = site.models[-1]
    for count in (2, 1):
        done = site.cluster.run(
            *("python", "-m", "cluster", "scale", model, str(count)),
            *("--address", site.cluster.dashboard, "--timeout", str(SCALED_WITHIN_S)),
            timeout_s=SCALED_WITHIN_S + 60,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert len(site.cluster.replicas(model)) == count
        answer = site.cluster.post("/v1/completions", model=model, prompt="x", max_tokens=4)
        assert answer.status_code == 200, answer.text
    return {"model": model, "replicas": [2, 1]}


def stream(
    site: Site, model: str, prompt: str, *, max_tokens: int, on_event: Any = None, **fields: Any
) -> list[Any]:
    """The events of one stream.

    Args:
        site: Whom to ask.
        model: As in the API.
        prompt: Text.
        max_tokens: Exactly so many are generated.
        on_event: Called with the events so far, once KILL_AFTER are there.
        fields: More of the request.
    """
    body = {
        "model": model,
        "prompt": prompt,
        "max_tokens": max_tokens,
        "ignore_eos": True,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
        **fields,
    }
    events: list[Any] = []
    url = f"{site.cluster.url}/v1/completions"
    with httpx.stream("POST", url, json=body, timeout=180) as response:
        assert response.status_code == 200, response.read()
        for line in response.iter_lines():
            if line.startswith("data: "):
                data = line.removeprefix("data: ")
                events.append(data if data == "[DONE]" else json.loads(data))
                if on_event is not None and len(events) == KILL_AFTER:
                    on_event(events)
    return events
