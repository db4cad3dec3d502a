"""Feedback over HTTP, down to the record and to the choices of the bandit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from fake_serve import ACCURATE, FRUGAL, ServeDouble, Site, StoreDouble
from ray.exceptions import ActorDiedError

from deployments.config.limits import Limits
from deployments.router.access.keys import hash_of
from deployments.router.decision.advisors.bandit import BanditAdvisor
from deployments.router.endpoints.feedback.route import MAX_BODY_BYTES, parse_feedback, rating_of
from deployments.router.sync.decision_log import MAX_CONTENT_BYTES
from deployments.router.wire.api_error import ApiError
from scheduler.bandit.model import SIZE, Algorithm, frugality, usual_cost

BANDIT = {"policy": "bandit", "weights": {"accuracy": 1}}
MODELS = [{"id": ACCURATE}, {"id": FRUGAL}]


def ask(site: Site, **body: Any) -> str:
    response = site.complete(routing=BANDIT, **body)
    assert response.status_code == 200, response.text
    return response.headers["x-decision-id"]


def rate(site: Site, decision_id: str, headers: Any = None, **fields: Any) -> Any:
    body = {"decision_id": decision_id, **fields}
    return site.request("POST", "/v1/feedback", json=body, headers=headers)


def choice(site: Site, **routing: Any) -> Any:
    body = {"model": "auto", "prompt": "Hello", "routing": BANDIT | routing}
    return site.request("POST", "/v1/route", json=body).json()


def test_feedback_changes_the_choice_and_survives(
    site: Site, start_site: Callable[..., Site]
) -> None:
    # 0.9 against 0.6; what is bad about this answer is not the other's fault.
    assert choice(site)["model"] == ACCURATE
    for _ in range(15):
        decision_id = ask(site, model=ACCURATE)
        answer = rate(site, decision_id, score=0.0)
        assert answer.json() == {
            "decision_id": decision_id, "score": 0.0, "replaced": False, "learned": True,
        }  # fmt: skip
    changed = choice(site)
    assert changed["model"] == changed["bandit"]["best"] == FRUGAL
    other = start_site()
    other.configure(models=MODELS, default_policy="bandit")
    other.runner.run(other.router.refresh())
    assert choice(other)["model"] == FRUGAL


def test_the_last_feedback_counts_and_stands_in_the_record(site: Site) -> None:
    decision_id = ask(site)
    first = rate(site, decision_id, thumbs="up").json()
    again = rate(site, decision_id, score=0.25).json()
    assert (first["score"], first["replaced"]) == (1.0, False)
    assert (again["score"], again["replaced"], again["learned"]) == (0.25, True, True)
    feedback = site.get(f"/v1/decisions/{decision_id}")["feedback"]
    assert (feedback["score"], feedback["given_as"], feedback["given_by"]) == (0.25, "score", None)
    listed = site.get("/v1/decisions")["data"]
    assert [r["feedback"]["score"] for r in listed if r["decision_id"] == decision_id] == [0.25]
    known = site.advisor(BanditAdvisor).source.current.state.of(ACCURATE)
    assert known.answers == 1
    assert known.moments[0, 0] == pytest.approx(0.25 - 0.9)


def test_the_same_feedback_twice_is_one(site: Site) -> None:
    decision_id = ask(site)
    for _ in range(3):
        assert rate(site, decision_id, score=1).status_code == 200
    known = site.advisor(BanditAdvisor).source.current.state.of(ACCURATE)
    assert (known.answers, known.moments[0, 0]) == (1, pytest.approx(0.1))


def test_a_decision_without_a_context_is_recorded_and_teaches_nothing(site: Site) -> None:
    decision_id = site.complete().headers["x-decision-id"]
    answer = rate(site, decision_id, score=1.0).json()
    assert (answer["replaced"], answer["learned"]) == (False, False)
    assert site.get(f"/v1/decisions/{decision_id}")["feedback"]["learnt"] is None
    assert site.get(f"/v1/decisions/{decision_id}")["bandit"] is None


@pytest.mark.parametrize(
    ("fields", "param", "said"),
    [
        ({"score": 1.5}, "score", "got 1.5"),
        ({"score": -0.1}, "score", "got -0.1"),
        ({"score": "good"}, "score", "got 'good'"),
        ({"score": True}, "score", "got True"),
        ({"thumbs": "sideways"}, "thumbs", "got 'sideways'"),
        ({"answer": ""}, "answer", "got ''"),
        ({"answer": "?!"}, "answer", "must have a letter or a digit"),
        ({}, "score", "give one of score, thumbs, answer"),
        ({"score": 1, "thumbs": "up"}, "thumbs", "give one of"),
        ({"score": 1, "mood": "fine"}, "mood", "not permitted"),
        ({"decision_id": 7, "score": 1}, "decision_id", "got 7"),
        ({"decision_id": "", "score": 1}, "decision_id", "got ''"),
    ],
)
def test_bad_feedback_names_field_and_value(
    site: Site, fields: dict[str, Any], param: str, said: str
) -> None:
    response = site.request("POST", "/v1/feedback", json={"decision_id": "d"} | fields)
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["param"] == param
    assert said in error["message"]


@pytest.mark.parametrize(
    ("fields", "status", "said"),
    [
        ({"answer": "a" * (MAX_BODY_BYTES + 1)}, 413, f"at most {MAX_BODY_BYTES} bytes"),
        ({"answer": "a" * (MAX_CONTENT_BYTES + 1)}, 400, "answer: String should have at most"),
        ({"answer": [{}] * 10}, 400, "body: at most 9 arrays and objects, got 12"),
    ],
)
def test_large_feedback_is_rejected(fields: dict[str, Any], status: int, said: str) -> None:
    body = json.dumps({"decision_id": "d"} | fields).encode()
    with pytest.raises(ApiError, match=said) as raised:
        parse_feedback(body, Limits(containers=9))
    assert raised.value.status == status


def test_the_longest_answer_fits_into_a_body() -> None:
    fields = {"decision_id": "d", "answer": "\u65e5" * MAX_CONTENT_BYTES}
    body = json.dumps(fields, ensure_ascii=False).encode()
    assert parse_feedback(body, Limits()).answer == fields["answer"]


def test_an_unknown_decision_is_404(site: Site) -> None:
    response = rate(site, "nobody", score=1)
    assert response.status_code == 404
    error = response.json()["error"]
    assert (error["param"], error["code"]) == ("decision_id", "decision_not_found")
    assert "'nobody'" in error["message"]


def test_only_ones_own_decisions_can_be_rated(
    start_site: Callable[..., Site], tmp_path: Path
) -> None:
    path = tmp_path / "keys.yaml"
    boss: dict[str, Any] = {"name": "boss", "admin": True}
    people = [boss, {"name": "ann"}, {"name": "bob"}]
    path.write_text(yaml.safe_dump([p | {"sha256": hash_of(str(p["name"]))} for p in people]))
    site = start_site(keys_file=str(path))
    key = {name: {"authorization": f"Bearer {name}"} for name in ("boss", "ann", "bob")}
    body = {"model": "auto", "prompt": "Hello", "routing": BANDIT}
    asked = site.request("POST", "/v1/completions", json=body, headers=key["ann"])
    decision_id = asked.headers["x-decision-id"]
    foreign = rate(site, decision_id, key["bob"], score=0)
    unknown = rate(site, "0" * 32, key["bob"], score=0)
    assert foreign.status_code == unknown.status_code == 404
    # They read alike: nobody learns which decisions there are.
    assert foreign.text.replace(decision_id, "ID") == unknown.text.replace("0" * 32, "ID")
    assert rate(site, decision_id, key["ann"], score=1).status_code == 200
    assert rate(site, decision_id, key["boss"], score=0).json()["replaced"]
    record = site.request("GET", f"/v1/decisions/{decision_id}", headers=key["boss"]).json()
    assert (record["key"], record["feedback"]["given_by"]) == ("ann", "boss")
    assert rate(site, decision_id, score=1).status_code == 401


def test_the_right_answer_is_compared_where_the_record_has_one(
    open_site: Site, serve: ServeDouble
) -> None:
    status, _, seen = serve.models[ACCURATE].reply
    spoken = {
        "choices": [{"index": 0, "text": "Let me see. So it is 42.", "finish_reason": "stop"}]
    }
    serve.models[ACCURATE].reply = (status, json.dumps(spoken).encode(), seen)
    decision_id = ask(open_site)
    assert rate(open_site, decision_id, answer="42").json()["score"] == 1.0
    assert rate(open_site, decision_id, answer="43").json()["score"] == 0.0
    # The script of the stream says Hel, lo.
    streamed = ask(open_site, stream=True)
    assert rate(open_site, streamed, answer="hello!").json()["score"] == 1.0


def test_the_right_answer_is_refused_where_answers_are_not_recorded(site: Site) -> None:
    response = rate(site, ask(site), answer="42")
    assert response.status_code == 422
    error = response.json()["error"]
    assert (error["param"], error["code"]) == ("answer", "answer_not_recorded")
    assert "record_content" in error["message"]


def test_a_store_that_is_away_is_said(site: Site, store: StoreDouble) -> None:
    decision_id = ask(site)
    store.fault = ActorDiedError()
    response = rate(site, decision_id, score=1)
    assert response.status_code == 503
    assert response.headers["retry-after"] == "5"
    store.fault = None
    assert rate(site, decision_id, score=1).status_code == 200


def test_what_an_answer_teaches(site: Site) -> None:
    decision_id = ask(site)
    record = site.get(f"/v1/decisions/{decision_id}")
    rating = rating_of(record, 0.5)
    assert rating
    joules = {c["model"]: c["energy_joules"] for c in record["candidates"]}
    usual = usual_cost(list(joules.values()))
    assert rating.model == ACCURATE
    assert rating.quality == pytest.approx(0.5 - 0.9)
    # 1.5 J were measured.
    assert rating.energy == frugality(1.5, usual) - frugality(joules[ACCURATE], usual)
    assert rating.context == tuple(record["bandit"]["context"])
    assert rating_of(record | {"attempts": record["attempts"] * 2}, 0.5) is None
    assert rating_of(record | {"error": "broke"}, 0.5) is None
    assert rating_of(record | {"observation": None}, 0.5) is None
    assert rating_of(record | {"candidates": []}, 0.5) is None
    unmeasured = record["observation"] | {"energy_joules": None}
    blind = rating_of(record | {"observation": unmeasured}, 0.5)
    assert blind
    assert blind.energy == 0.0


def test_nothing_is_fetched_until_somebody_wants_the_bandit(site: Site, store: StoreDouble) -> None:
    site.complete()
    assert not site.advisor(BanditAdvisor).source.used
    assert site.get("/v1/decisions")["data"][0]["bandit"] is None
    site.configure(models=MODELS, shadow={"policy": "bandit"})
    assert site.advisor(BanditAdvisor).source.used
    site.complete()
    record = site.get("/v1/decisions")["data"][0]
    assert record["policy"] == "weighted"
    assert record["bandit"]["explored"] is False
    assert len(record["bandit"]["context"]) == SIZE


@pytest.mark.parametrize(
    "config",
    [
        {"default_policy": "bandit"},
        {"canary": {"policy": "bandit", "share": 0.1}},
        {"rules": [{"name": "all", "then": {"policy": "bandit"}}]},
    ],
)
def test_whatever_names_the_bandit_turns_learning_on(site: Site, config: Any) -> None:
    site.configure(models=MODELS, **config)
    assert site.get("/health")["faults"] == []
    assert site.advisor(BanditAdvisor).source.used


def test_the_settings_reach_the_bandit(site: Site) -> None:
    settings = {"algorithm": "thompson", "exploration": 0.7, "ridge": 9.0}
    site.configure(models=MODELS, bandit={**settings, "explorations_per_hour": 0})
    bandit = site.advisor(BanditAdvisor).source
    assert (bandit.current.algorithm, bandit.current.ridge) == (Algorithm.THOMPSON, 9.0)
    assert not bandit.may_explore
