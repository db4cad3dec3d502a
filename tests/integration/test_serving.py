"""The HTTP contract against live models, with the official client where it has a say."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import httpx
import openai
import pytest
from live_cluster import Cluster
from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageParam
from pydantic import BaseModel

pytestmark = pytest.mark.integration

PROMPT: list[ChatCompletionMessageParam] = [
    {"role": "user", "content": "Count the planets and name the third one."}
]
ACCURATE = {"weights": {"accuracy": 1}}
FRUGAL = {"weights": {"energy": 1}}


def routing_of(response: BaseModel) -> Any:
    """The member that the official client does not know."""
    return (response.model_extra or {})["routing"]


def assert_cheapest(cluster: Cluster, decision_id: str) -> None:
    """Of those compared; what they cost here is learnt as the tests go, so no name is known."""
    record = cluster.get(f"/v1/decisions/{decision_id}")
    joules = {c["model"]: c["energy_joules"] for c in record["candidates"]}
    assert set(joules) == {"tiny-phi3", "tiny-mistral"}
    # Less than 1 % is no difference.
    assert joules[record["model"]] <= min(joules.values()) * 1.011


def test_weights_decide_which_model_answers(cluster: Cluster) -> None:
    answers = {}
    for name, routing in (("accurate", ACCURATE), ("frugal", FRUGAL)):
        response = cluster.openai.chat.completions.create(
            model="auto", messages=PROMPT, max_tokens=8, extra_body={"routing": routing}
        )
        answers[name] = response
        assert response.usage is not None
        assert response.usage.completion_tokens == 8
        assert routing_of(response)["model"] == response.model
    assert answers["accurate"].model == "tiny-phi3"
    assert_cheapest(cluster, routing_of(answers["frugal"])["decision_id"])


def test_the_routing_object_tells_prediction_and_measurement(cluster: Cluster) -> None:
    response = cluster.post(
        "/v1/chat/completions", model="auto", messages=PROMPT, max_tokens=8, routing=FRUGAL
    )
    routing = response.json()["routing"]
    assert routing["predicted"]["output_tokens"] == 8
    assert routing["predicted"]["runtime_s"] > 0
    assert routing["actual"]["output_tokens"] == 8
    assert routing["actual"]["runtime_s"] > 0
    assert routing["actual"]["energy_joules"] > 0
    assert routing["energy_source"] in ("cpu_time", "rapl")
    assert response.headers["x-routed-model"] == routing["model"]
    assert_cheapest(cluster, routing["decision_id"])
    assert response.headers["x-decision-id"] == routing["decision_id"]


@pytest.mark.parametrize("usage", [True, False])
def test_streaming(cluster: Cluster, usage: bool) -> None:
    options: dict[str, Any] = {"stream_options": {"include_usage": True}} if usage else {}
    stream: Iterable[ChatCompletionChunk] = cluster.openai.chat.completions.create(
        model="auto",
        messages=PROMPT,
        max_tokens=12,
        stream=True,
        extra_body={"routing": ACCURATE},
        **options,
    )
    chunks = list(stream)
    assert {chunk.model for chunk in chunks} == {"tiny-phi3"}
    (reported,) = (chunk for chunk in chunks if getattr(chunk, "routing", None))
    assert routing_of(reported)["actual"]["output_tokens"] == 12
    if usage:
        assert reported.usage is not None
        assert reported.usage.completion_tokens == 12
        assert reported.choices == []
    else:
        assert reported.choices[0].finish_reason == "length"


def test_a_stream_comes_in_pieces_and_ends_with_done(cluster: Cluster) -> None:
    body = {"model": "tiny-phi3", "prompt": "One", "max_tokens": 20, "stream": True}
    with httpx.stream("POST", f"{cluster.url}/v1/completions", json=body, timeout=60) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        events = [line[6:] for line in response.iter_lines() if line.startswith("data: ")]
    assert events[-1] == "[DONE]"
    pieces = [json.loads(event)["choices"][0] for event in events[:-1]]
    assert len(pieces) == 20
    assert [p["finish_reason"] for p in pieces] == [None] * 19 + ["length"]


def test_what_vllm_takes_passes_through(cluster: Cluster) -> None:
    arguments: dict[str, Any] = {
        "model": "tiny-mistral",
        "messages": PROMPT,
        "max_tokens": 6,
        "temperature": 1.0,
        "seed": 7,
        "logprobs": True,
        "top_logprobs": 2,
    }
    first, second = (cluster.openai.chat.completions.create(**arguments) for _ in range(2))
    assert first.choices[0].message.content == second.choices[0].message.content
    assert len(first.choices[0].logprobs.content) == 6
    several = cluster.openai.chat.completions.create(
        model="tiny-mistral", messages=PROMPT, max_tokens=4, n=3, temperature=1.0
    )
    assert len(several.choices) == 3
    assert several.usage is not None
    assert several.usage.completion_tokens == 12
    assert routing_of(several)["actual"]["output_tokens"] == 12


def test_plain_completions_take_text_and_token_ids(cluster: Cluster) -> None:
    for prompt in ("Once upon a time", [10, 11, 12], ["One", "Two"]):
        response = cluster.openai.completions.create(
            model="auto", prompt=prompt, max_tokens=4, extra_body={"routing": FRUGAL}
        )
        assert_cheapest(cluster, routing_of(response)["decision_id"])
        assert len(response.choices) == (2 if prompt == ["One", "Two"] else 1)


def test_models(cluster: Cluster) -> None:
    listed = {model.id for model in cluster.openai.models.list()}
    assert {"auto", "tiny-phi3", "tiny-mistral"} <= listed
    model = cluster.openai.models.retrieve("tiny-phi3")
    assert (model.model_extra or {})["max_model_len"] == 512


def test_a_dry_run_shows_every_stage_and_dispatches_nothing(cluster: Cluster) -> None:
    before = cluster.get("/v1/decisions?limit=1000")["data"]
    decision = cluster.post("/v1/route", model="auto", messages=PROMPT, routing=ACCURATE).json()
    assert decision["model"] == "tiny-phi3"
    best = decision["candidates"][0]
    assert set(best["stages"]) == {"runtime", "energy", "accuracy"}
    assert set(best["stages"]["energy"]) == {"z", "log", "minmax", "softmax", "rebased"}
    assert len(cluster.get("/v1/decisions?limit=1000")["data"]) == len(before)


def test_decisions_are_kept(cluster: Cluster) -> None:
    response = cluster.post("/v1/completions", model="auto", prompt="x", max_tokens=2)
    decision_id = response.headers["x-decision-id"]
    record = cluster.get(f"/v1/decisions/{decision_id}")
    assert record["model"] == response.json()["model"]
    assert record["observation"]["output_tokens"] == 2
    export = ("python", "-m", "cluster", "record", "export", "--data-dir", str(cluster.data_dir))
    cluster.wait_until(
        "the decision is on disk", lambda: decision_id in cluster.run(*export).stdout, 30
    )


def test_each_replica_holds_its_own_declared_gpu_or_its_part(cluster: Cluster) -> None:
    listed = cluster.run("ray", "list", "placement-groups", "--detail", "--format", "json")
    groups = json.loads(listed.stdout[listed.stdout.index("[") :])
    bundles = [b["unit_resources"] for g in groups for b in g["bundles"] if g["state"] == "CREATED"]
    assert {bundle["GPU"] for bundle in bundles} == {1.0, 0.5}
    assert len(bundles) >= 2


def test_all_processes_of_a_model_on_a_part_of_a_gpu_know_it(cluster: Cluster) -> None:
    """A worker that does not would wait for a whole one."""
    for model, share in (("tiny-phi3", None), ("tiny-mistral", "0.5")):
        for replica in cluster.replicas(model):
            engine = [
                child
                for child in replica.children(recursive=True)
                if "EngineCore" in " ".join(child.cmdline())
            ]
            assert engine
            for process in (replica, *engine):
                assert process.environ().get("VLLM_RAY_PER_WORKER_GPUS") == share


BAD_REQUESTS = [
    ({"messages": []}, 400, "messages"),
    ({"messages": "hello"}, 400, "messages"),
    ({"model": "gpt-9"}, 404, "model"),
    ({"model": 3}, 400, "model"),
    ({"stream": "yes"}, 400, "stream"),
    ({"max_tokens": 0}, 400, "max_tokens"),
    ({"routing": {"policy": "best"}}, 400, "routing.policy"),
    ({"routing": {"wieghts": {}}}, 400, "routing.wieghts"),
    ({"routing": {"weights": {"energy": -1}}}, 400, "routing.weights.energy"),
    ({"routing": {"weights": {"energy": 0}}}, 400, "routing.weights"),
    ({"routing": {"weights": {"energy": "much"}}}, 400, "routing.weights.energy"),
    ({"routing": {"models": ["gpt-9"]}}, 400, "routing.models"),
    ({"routing": {"constraints": {"max_energy_joules": 1e-9}}}, 422, "routing.constraints"),
    ({"temperature": -3}, 400, None),
]


@pytest.mark.parametrize(("change", "status", "param"), BAD_REQUESTS)
def test_bad_requests_get_an_openai_error(
    cluster: Cluster, change: dict[str, Any], status: int, param: str | None
) -> None:
    response = cluster.post(
        "/v1/chat/completions", **{"model": "auto", "messages": PROMPT} | change
    )
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert error["message"]
    if param:
        assert error["param"] == param
        assert param in error["message"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{not json", 400),
        (b"[]", 400),
        (
            b'{"model": "auto", "messages": [{"role": "user"}], "routing": '
            b'{"weights": {"time": NaN}}}',
            400,
        ),
        (b"x" * 100_001, 413),
    ],
)
def test_bodies_that_are_no_requests(cluster: Cluster, body: bytes, status: int) -> None:
    response = httpx.post(f"{cluster.url}/v1/chat/completions", content=body, timeout=30)
    assert response.status_code == status
    assert response.json()["error"]["type"] == "invalid_request_error"


def test_a_prompt_that_fits_nowhere_is_rejected_with_every_context(cluster: Cluster) -> None:
    with pytest.raises(
        openai.BadRequestError, match=r"600 tokens leaves no room .* context of 512"
    ):
        cluster.openai.completions.create(model="auto", prompt=[5] * 600, max_tokens=4)


def test_a_refusal_of_a_stream_keeps_its_status(cluster: Cluster) -> None:
    with pytest.raises(openai.BadRequestError):
        cluster.openai.completions.create(
            model="tiny-phi3", prompt=[5] * 600, max_tokens=4, stream=True
        )


def test_unknown_paths_and_methods_are_openai_errors(cluster: Cluster) -> None:
    for response in (
        httpx.get(f"{cluster.url}/v1/nothing"),
        httpx.get(f"{cluster.url}/v1/chat/completions"),
    ):
        assert response.status_code in (404, 405)
        assert "error" in response.json()


def test_a_client_that_goes_away_frees_its_slot(cluster: Cluster) -> None:
    body = {"model": "tiny-phi3", "prompt": "x", "max_tokens": 480, "stream": True}
    # Long enough to be looked at: eight answers side by side, none of which ends early.
    body |= {"ignore_eos": True, "n": 8, "temperature": 1.0}
    with httpx.Client(base_url=cluster.url, timeout=60) as client:

        def ongoing() -> int:
            return int(client.get("/health").json()["models"]["tiny-phi3"]["ongoing"])

        def latest() -> Any:
            return client.get("/v1/decisions?limit=1").json()["data"][0]

        cluster.wait_until("nothing is ongoing", lambda: ongoing() == 0, 30)
        with httpx.stream("POST", f"{cluster.url}/v1/completions", json=body, timeout=60) as stream:
            lines = stream.iter_lines()
            next(lines)
            # `/health` is up to a second old; each of the eight answers takes a place.
            cluster.wait_until("eight answers are ongoing", lambda: ongoing() == 8, 30)
        cluster.wait_until("the request is gone", lambda: ongoing() == 0, 30)
        # It did not only end: an answer that is whole has no error.
        cluster.wait_until("it is recorded", lambda: latest()["error"] is not None, 30)
        assert latest()["error"] == "the client went away"


def test_the_service_is_up_after_all_that(cluster: Cluster) -> None:
    health = cluster.get("/health")
    assert health["status"] == "ok", health
    assert health["faults"] == []
