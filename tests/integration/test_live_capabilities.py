"""Engines that take different requests, one real cluster: each request gets the right answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile
from typing import Any

import httpx
import pytest
from live_cluster import Cluster, launched, model_application
from tiny_checkpoints import build_tiny_checkpoints

from deployments.demo_models.catalog import cache_folder
from scheduler.costs.profiles import LinearModel, ModelProfile, ProfileSet

pytestmark = pytest.mark.integration

PLAIN, ABLE = "plain", "able"
SHORT, LONG = 256, 1024
PLACES = 4
"""Of both replicas of the able model."""
KEEP_ALIVE_S = 0.3
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
        "max_num_seqs": PLACES // 2,
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
            "keep_alive_s": KEEP_ALIVE_S,
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


def _ongoing(cluster: Cluster) -> int:
    return int(cluster.get("/health")["models"][ABLE]["ongoing"])


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


@contextmanager
def crowded(cluster: Cluster) -> Iterator[None]:
    """Every place of the able model is taken, and two more long answers wait for each.

    A kernel that keeps clients from busy cores may hold up some of them until others have their
    answers: each asks again, so that in the end all are there, and stay until the block ends.
    """
    ended = threading.Event()

    def ask() -> None:
        while not ended.is_set():
            chat(cluster, model=ABLE, max_tokens=900, ignore_eos=True)

    clients = [threading.Thread(target=ask) for _ in range(4 * PLACES)]
    for client in clients:
        client.start()
    try:
        cluster.wait_until("most of them wait", lambda: _ongoing(cluster) >= 3 * PLACES, 30)
        yield
    finally:
        ended.set()
        for client in clients:
            client.join()


def test_a_stream_that_waits_for_its_turn_has_headers_and_comments(two: Cluster) -> None:
    body = {"model": ABLE, "messages": [USER], "max_tokens": 4, "stream": True}
    url = f"{two.url}/v1/chat/completions"
    with crowded(two):
        began = time.monotonic()
        with httpx.stream("POST", url, json=body, timeout=60) as response:
            headers_s = time.monotonic() - began
            assert (response.status_code, response.headers["x-routed-model"]) == (200, ABLE)
            lines = [(time.monotonic() - began, line) for line in response.iter_lines() if line]
    first_s = next(at for at, line in lines if line.startswith("data: "))
    texts = [line for _, line in lines]
    comments = list(takewhile(lambda line: not line.startswith("data: "), texts))
    # This client may read late. Comments lie a period apart: so long before the last one, and the
    # first token behind it, the headers had been sent.
    sent_s = min(headers_s, first_s - (len(comments) - 1) * KEEP_ALIVE_S)
    print(
        f"headers after {sent_s:.1f} s, read after {headers_s:.1f} s, first token {first_s:.1f} s"
    )
    assert texts[-1] == "data: [DONE]"
    assert first_s > 1.0, "the places were free"
    assert sent_s < first_s / 2
    assert len(comments) >= 2
    assert set(comments) == {": keep-alive"}


def test_a_tool_loop_stays_with_its_model(two: Cluster) -> None:
    assert chat(two, tools=[TOOL], model=ABLE).status_code == 200
    function = {"name": "find", "arguments": '{"where": "here"}'}
    call = {"id": "call-1", "type": "function", "function": function}
    answer = {"role": "assistant", "content": None, "tool_calls": [call]}
    result = {"role": "tool", "tool_call_id": "call-1", "content": "a river"}
    told = chat(two, messages=[USER, answer, result]).json()["routing"]["session"]
    assert told["stayed"]
    assert told["reason"] == "kept: the last message is a tool's result"
