"""Engines that take different requests, one real cluster: each request gets the right answer."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import psutil
import pytest
from live_cluster import Cluster, launched, model_application
from tiny_checkpoints import build_tiny_checkpoints

from deployments.demo_models.catalog import cache_folder
from scheduler.costs.profiles import LinearModel, ModelProfile, ProfileSet

pytestmark = pytest.mark.integration

PLAIN, ABLE = "plain", "able"
SHORT, LONG = 256, 1024
NO_SYSTEM = (
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Roles must alternate, and there is no system role') }}{% endif %}"
    "{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
USER = {"role": "user", "content": "Hello"}
ANSWER = {"role": "assistant", "content": "Hello to you"}
SYSTEM = {"role": "system", "content": "Be brief."}
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}


def tool(pattern: str) -> dict[str, Any]:
    """Strict, or vLLM lets the arguments be any JSON, which of random weights has no end."""
    where = {"type": "string", "pattern": f"^{pattern}$"}
    parameters = {
        "type": "object",
        "properties": {"where": where},
        "required": ["where"],
        "additionalProperties": False,
    }
    function = {"name": "find", "parameters": parameters, "strict": True}
    return {"type": "function", "function": function}


TOOL = tool("[a-z]{3,9}")
CALLING = {"tools": [TOOL], "tool_choice": "required", "temperature": 0, "max_tokens": 400}
# The cheap model first, whatever is learnt of its costs.
PLAIN_FIRST = {"policy": "static"}


def prior() -> ProfileSet:
    def profile(model: str, scale: float) -> ModelProfile:
        return ModelProfile(
            model=model,
            accelerator="cpu",
            runtime=LinearModel("linear", (0.01 * scale, 1e-5 * scale, 3e-3 * scale)),
            energy=LinearModel("linear", (0.1 * scale, 1e-4 * scale, 3e-2 * scale)),
            energy_source="cpu_time",
            input_tokens_range=(1, 512),
            output_tokens_range=(1, 512),
            mean_output_tokens=16,
            accuracy=0.5,
            accuracy_source="made up for the tests",
            source="made up for the tests",
        )

    return ProfileSet((profile(PLAIN, 1), profile(ABLE, 4)))


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cheap model that takes little, and a dear one, twice, that takes most."""
    folder = tmp_path_factory.mktemp("capabilities")
    checkpoints = build_tiny_checkpoints(cache_folder() / "tests")
    (folder / "prior.json").write_text(prior().to_json())
    plain = model_application(PLAIN, checkpoints["tiny-mistral"], "float32", 0.5)
    plain["args"]["engine_kwargs"] |= {"max_model_len": SHORT, "chat_template": NO_SYSTEM}
    able = model_application(ABLE, checkpoints["tiny-phi3"], "float32", 0.5)
    able["args"]["engine_kwargs"] |= {
        "max_model_len": LONG,
        "max_num_seqs": 2,
        "enable_auto_tool_choice": True,
        "tool_call_parser": "hermes",
    }
    able["args"]["scaling"] = {"mode": "fixed", "num_replicas": 2}
    router = {
        "name": "router",
        "route_prefix": "/",
        "import_path": "deployments.app:build_router",
        "args": {
            "data_dir": str(folder / "data"),
            "num_cpus": 0.1,
            "request_timeout_s": 60,
            "keep_alive_s": 0.3,
        },
        "deployments": [
            {
                "name": "Router",
                "user_config": {
                    "prior_profiles": str(folder / "prior.json"),
                    "models": [{"id": PLAIN}, {"id": ABLE}],
                    "static_model": PLAIN,
                },
            }
        ],
    }
    config = {
        "logging_config": {"enable_access_log": False},
        "applications": [router, plain, able],
    }
    environment = {"RAY_metrics_report_interval_ms": "1000"}
    with launched(config, folder, checkpoints, "--num-gpus=2 --num-cpus=2", environment) as cluster:
        cluster.wait_until_ready()
        cluster.wait_until("both count", lambda: _counted(cluster), 60)
        yield cluster


def _counted(cluster: Cluster) -> bool:
    models = cluster.get("/health")["models"]
    return all(m["available"] and m["input_tokens"]["fault"] is None for m in models.values())


def chat(cluster: Cluster, path: str = "/v1/chat/completions", **body: Any) -> httpx.Response:
    asked = {"model": "auto", "messages": [USER], "max_tokens": 4, "routing": PLAIN_FIRST} | body
    return cluster.post(path, **asked)


def test_each_replica_says_what_it_takes(two: Cluster) -> None:
    plain, able = (two.get(f"/v1/models/{name}")["capabilities"] for name in (PLAIN, ABLE))
    assert {"tools", "system", "repeated_user", "image"} <= plain["lacks"].keys()
    assert (plain["tool_parser"], able["tool_parser"]) == (None, "hermes")
    assert not {"tools", "system", "repeated_user", "tool_results"} & able["lacks"].keys()
    assert able["at_most"]["logprobs"] == 20


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"max_tokens": 300}, "max_tokens"),
        ({"messages": [{"role": "user", "content": "word " * 300}]}, "messages"),
        ({"tools": [TOOL]}, "tools"),
        ({"messages": [SYSTEM, USER]}, "messages.0.role"),
        ({"messages": [USER, USER]}, "messages.1.role"),
        ({"messages": [SYSTEM, USER, ANSWER, USER], "stream": True}, "messages.0.role"),
    ],
)
def test_auto_takes_the_model_that_can(two: Cluster, body: dict[str, Any], field: str) -> None:
    assert chat(two, "/v1/route").json()["model"] == PLAIN
    dry = chat(two, "/v1/route", **body).json()
    assert dry["model"] == ABLE
    (excluded,) = dry["excluded"]
    assert excluded["model"] == PLAIN
    # The template that was rendered for the very request rejects its messages as a whole.
    assert excluded["field"] in (field, "messages")
    response = chat(two, **body)
    assert (response.status_code, response.headers["x-routed-model"]) == (200, ABLE), response.text


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        ({"max_tokens": 2048}, "context_length_exceeded", "max_tokens"),
        ({"messages": [{"role": "user", "content": [PICTURE]}]}, "not_supported",
         "messages.0.content.0"),
        ({"tools": [TOOL], "routing": {"models": [PLAIN]}}, "not_supported", "tools"),
        ({"tools": [TOOL], "model": PLAIN}, "not_supported", "tools"),
        ({"messages": [SYSTEM, USER], "model": PLAIN}, "not_supported", "messages"),
    ],
)  # fmt: skip
def test_where_none_can_the_router_says_so(
    two: Cluster, body: dict[str, Any], code: str, field: str, stream: bool
) -> None:
    response = chat(two, **body, stream=stream)
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (400, code, field)


def test_what_no_one_knew_before_is_tried_on_the_next_model_and_learnt(two: Cluster) -> None:
    for expected in ([PLAIN, ABLE], [ABLE]):
        response = chat(two, truncate_prompt_tokens=SHORT + 10)
        assert response.status_code == 200, response.text
        attempts = response.json()["routing"]["attempts"]
        assert [attempt["model"] for attempt in attempts] == expected


def test_what_is_the_clients_fault_gets_the_first_engines_word(two: Cluster) -> None:
    for _ in range(2):
        response = chat(two, temperature=-3)
        assert response.status_code == 400
        assert "temperature" in response.json()["error"]["message"]
        record = two.get("/v1/decisions?limit=1")["data"][0]
        assert [attempt["model"] for attempt in record["attempts"]] == [PLAIN, ABLE]


def test_a_stream_that_waits_for_its_turn_has_headers_and_comments(two: Cluster) -> None:
    """Both places of both replicas are taken for some seconds."""
    long = {"model": ABLE, "max_tokens": 900, "ignore_eos": True}
    threads = [threading.Thread(target=chat, args=(two,), kwargs=long) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    body = {"model": ABLE, "messages": [USER], "max_tokens": 4, "stream": True}
    began = time.monotonic()
    with httpx.stream("POST", f"{two.url}/v1/chat/completions", json=body, timeout=60) as response:
        headers_s = time.monotonic() - began
        assert (response.status_code, response.headers["x-routed-model"]) == (200, ABLE)
        lines = [(time.monotonic() - began, line) for line in response.iter_lines() if line]
    for thread in threads:
        thread.join()
    first_s = next(at for at, line in lines if line.startswith("data: "))
    comments = [at for at, line in lines if line.startswith(":")]
    assert lines[-1][1] == "data: [DONE]"
    assert first_s > 1.0, "the places were free"
    assert headers_s < first_s / 2
    assert len(comments) >= 2


def test_a_tool_loop_stays_with_its_model(two: Cluster) -> None:
    opening = chat(two, **CALLING, model=ABLE)
    assert opening.status_code == 200, opening.text
    message = opening.json()["choices"][0]["message"]
    (call,) = message["tool_calls"]
    assert call["function"]["name"] == "find"
    assert json.loads(call["function"]["arguments"])["where"].isalpha()
    result = {"role": "tool", "tool_call_id": call["id"], "content": "a river"}
    answer = {name: message[name] for name in ("role", "content", "tool_calls")}
    # Without the tools any model might answer; the loop is what keeps it.
    told = chat(two, messages=[USER, answer, result]).json()["routing"]["session"]
    assert told["stayed"]
    assert told["reason"] == "kept: the last message is a tool's result"


def engine_cores(cluster: Cluster) -> list[psutil.Process]:
    return [
        child
        for replica in cluster.replicas(ABLE)
        for child in replica.children(recursive=True)
        if "EngineCore" in " ".join(child.cmdline())
    ]


def kill_the_one_that_works(cluster: Cluster) -> None:
    cores = engine_cores(cluster)
    before = [core.cpu_times().user for core in cores]
    time.sleep(0.15)
    worked = [core.cpu_times().user - then for core, then in zip(cores, before, strict=True)]
    cores[worked.index(max(worked))].send_signal(signal.SIGKILL)


def streamed_call(cluster: Cluster, kill_after: int | None) -> tuple[list[Any], str, str]:
    """The events of a streamed tool call of some hundred tokens, its name and its arguments."""
    body = {"model": ABLE, "messages": [USER], "stream": True, **CALLING, "max_tokens": 900}
    body["tools"] = [tool("[a-z]{600,650}")]
    body["stream_options"] = {"include_usage": True}
    events: list[Any] = []
    url = f"{cluster.url}/v1/chat/completions"
    with httpx.stream("POST", url, json=body, timeout=90) as response:
        assert response.status_code == 200, response.read()
        for line in response.iter_lines():
            if line.startswith("data: "):
                data = line.removeprefix("data: ")
                events.append(data if data == "[DONE]" else json.loads(data))
                if len(events) == kill_after:
                    kill_the_one_that_works(cluster)
    name = arguments = ""
    for event in events:
        for choice in event["choices"] if isinstance(event, dict) and "choices" in event else ():
            for piece in choice["delta"].get("tool_calls") or ():
                name += piece["function"].get("name") or ""
                arguments += piece["function"].get("arguments") or ""
    return events, name, arguments


def test_a_tool_call_goes_on_where_the_engine_dies(two: Cluster) -> None:
    """The last test: it takes a while until both replicas are there again."""
    undisturbed, name, arguments = streamed_call(two, kill_after=None)
    assert (name, undisturbed[-1]) == ("find", "[DONE]")
    assert 600 <= len(json.loads(arguments)["where"]) <= 650
    disturbed, *told = streamed_call(two, kill_after=20)
    assert disturbed[-1] == "[DONE]", disturbed[-1]
    assert told == [name, arguments]
    begins = [attempt["begins"] for attempt in disturbed[-2]["routing"]["attempts"]]
    assert begins == ["anew", "by token ids"]
    assert disturbed[-2]["usage"] == undisturbed[-2]["usage"]
    reasons = [c["finish_reason"] for e in disturbed[:-1] for c in e["choices"]]
    assert [reason for reason in reasons if reason] == ["tool_calls"]
