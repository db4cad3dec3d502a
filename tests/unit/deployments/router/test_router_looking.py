"""What one can look at: dry runs, models, decisions, profiles, health; and who may."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from fake_serve import ACCURATE, FRUGAL, PROFILES, Model, ServeDouble, Site, StoreDouble, profile

from cluster.store.archive.entries import Entry, Retention
from scheduler.__main__ import main
from scheduler.costs.profiles import ProfileSet


def test_a_dry_run_is_what_the_command_line_prints(
    site: Site, serve: ServeDouble, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = {"accuracy": 0.7, "energy": 0.2, "time": 0.1}
    body = {"model": "auto", "prompt": "x" * 400, "max_tokens": 50, "routing": {"weights": weights}}
    response = site.request("POST", "/v1/route", json=body)
    saved = tmp_path / "profiles.json"
    saved.write_text(PROFILES.to_json())
    flags = [f"--weight_{name}={value}" for name, value in weights.items()]
    assert main(["--prompt", "x" * 400, "--max_tokens", "50", "--json", *flags,
                 "--profiles", str(saved)]) == 0  # fmt: skip
    printed = json.loads(capsys.readouterr().out)
    decision = response.json()
    assert decision.pop("decision_id") != printed.pop("decision_id")
    assert decision == printed
    assert decision["candidates"][0]["input_tokens"] == 100
    assert not any(model.calls for model in serve.models.values())
    assert site.get("/v1/decisions")["data"] == []


def test_a_dry_run_takes_messages_and_pinned_models(site: Site) -> None:
    body = {"model": ACCURATE, "messages": [{"role": "user", "content": "x" * 400}]}
    decision = site.request("POST", "/v1/route", json=body).json()
    assert (decision["model"], decision["policy"]) == (ACCURATE, "pinned")
    # The template of one message adds 5.
    assert [c["input_tokens"] for c in decision["candidates"]] == [105]


def test_models(site: Site) -> None:
    listed = site.get("/v1/models")
    assert listed["object"] == "list"
    assert [model["id"] for model in listed["data"]] == ["auto", ACCURATE, FRUGAL]
    assert site.get(f"/v1/models/{FRUGAL}") == listed["data"][2]
    assert listed["data"][2]["max_model_len"] == 1000
    assert "max_model_len" not in site.get("/v1/models/auto")
    missing = site.request("GET", "/v1/models/org/other")
    assert missing.status_code == 404
    assert "unknown 'org/other'" in missing.json()["error"]["message"]


def test_decisions_newest_first(site: Site) -> None:
    ids = [site.complete().headers["x-decision-id"] for _ in range(3)]
    listed = site.get("/v1/decisions?limit=2")["data"]
    assert [record["decision_id"] for record in listed] == ids[:0:-1]
    record = site.get(f"/v1/decisions/{ids[0]}")
    assert record["observation"]["energy_joules"] == 1.5
    assert {c["model"] for c in record["candidates"]} == {ACCURATE, FRUGAL}
    missing = site.request("GET", "/v1/decisions/nobody")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "decision_not_found")


def test_decisions_of_other_routers_come_from_the_store(site: Site, store: StoreDouble) -> None:
    own = site.complete().headers["x-decision-id"]
    now = time.time()
    elsewhere = Entry.of({"decision_id": "elsewhere", "finished_at": now - 60})
    store.state.log_decisions([elsewhere], Retention(2**30, None))
    assert [r["decision_id"] for r in site.get("/v1/decisions")["data"]] == [own, "elsewhere"]
    older = site.get(f"/v1/decisions?before={now - 30}")["data"]
    assert [r["decision_id"] for r in older] == ["elsewhere"]
    assert site.get("/v1/decisions/elsewhere")["finished_at"] == now - 60


@pytest.mark.parametrize("query", ["before=x", "before=nan", "limit=0", "limit=x"])
def test_a_query_that_makes_no_sense(site: Site, query: str) -> None:
    refused = site.request("GET", f"/v1/decisions?{query}")
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == query.partition("=")[0]


def test_decisions_get_into_the_record_without_contents(site: Site, store: StoreDouble) -> None:
    decision_id = site.complete(prompt="My secret").headers["x-decision-id"]
    site.wait_until(lambda health: health["record"]["written"] == 1)
    assert site.get("/health")["record"] == {
        "written": 1,
        "waiting": 0,
        "dropped": 0,
        "fault": None,
        "dropped_here": 0,
    }
    recorded = store.state.decision(decision_id)
    assert recorded == site.get(f"/v1/decisions/{decision_id}")
    assert "secret" not in str(recorded)


@pytest.mark.parametrize("stream", [False, True])
def test_contents_are_recorded_where_that_is_asked_for(open_site: Site, stream: bool) -> None:
    answer = open_site.complete(prompt="My secret", stream=stream)
    recorded = open_site.get(f"/v1/decisions/{answer.headers['x-decision-id']}")
    assert json.loads(recorded["content"]["request"])["prompt"] == "My secret"
    assert recorded["content"]["answer"] == answer.text


def test_without_the_store_everything_goes_on(site: Site, store: StoreDouble) -> None:
    version = site.get("/health")["profile_version"]
    store.die()
    site.wait_until(lambda health: health["faults"])
    assert site.get("/health")["faults"][0].startswith("store: ActorDiedError")
    decision_id = site.complete().headers["x-decision-id"]
    assert site.get(f"/v1/decisions/{decision_id}")["decision_id"] == decision_id
    assert len(site.get("/v1/decisions")["data"]) == 1
    assert site.request("GET", "/v1/decisions/other").status_code == 404
    store.fault = None
    site.wait_until(lambda health: health["status"] == "ok")
    assert site.get("/health")["profile_version"] == version
    site.wait_until(lambda _: store.state.decision(decision_id))


def test_new_profiles_are_used_without_a_restart(site: Site, store: StoreDouble) -> None:
    assert site.complete(routing={"weights": {"energy": 1}}).json()["model"] == FRUGAL
    store.state.publish(ProfileSet((profile(FRUGAL, 1.0, 9000.0, 0.6),)).to_json())
    version = site.runner.run(site.router.refresh())
    assert site.get("/health")["profile_version"] == version
    published = site.request("GET", "/v1/profiles")
    assert ProfileSet.from_json(published.text).version == version
    assert site.runner.run(site.router.profiles()) == published.text
    assert site.complete(routing={"weights": {"energy": 1}}).json()["model"] == ACCURATE


def test_a_wrong_configuration_shows_and_the_old_one_stays(site: Site, tmp_path: Path) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text('{"schema_version": 99}')
    for user_config, told in (
        ({"models": [{"id": "a"}, {"id": "a"}]}, "two models are named 'a'"),
        ({"modles": []}, "modles"),
        ({"default_policy": "best"}, "default_policy"),
        ({"prior_profiles": str(tmp_path / "none.json")}, "prior_profiles"),
        ({"prior_profiles": str(broken)}, "schema_version"),
    ):
        site.configure(**user_config)
        health = site.get("/health")
        assert health["status"] == "degraded"
        assert told in health["faults"][0]
        assert site.runner.run(site.router.models()) == [ACCURATE, FRUGAL]
        assert site.complete().status_code == 200
    site.configure(models=[{"id": FRUGAL}])
    assert (site.get("/health")["status"], site.get("/health")["faults"]) == ("ok", [])
    assert [model["id"] for model in site.get("/v1/models")["data"]] == ["auto", FRUGAL]


def test_a_model_without_a_profile_is_told_of_once(
    site: Site, serve: ServeDouble, caplog: pytest.LogCaptureFixture
) -> None:
    serve.models["new"] = Model("new")
    with caplog.at_level("WARNING", logger="ray.serve"):
        site.configure(models=[{"id": FRUGAL}, {"id": "new"}])
        for _ in range(3):
            site.runner.run(site.router.refresh())
    assert [r.getMessage() for r in caplog.records] == [
        "new has no profile: it can only be asked for by name"
    ]


def test_serve_that_does_not_answer_changes_nothing(site: Site, serve: ServeDouble) -> None:
    serve.fault = RuntimeError("controller is away")
    for model in serve.models.values():
        model.replicas = 0
    for _ in range(5):
        assert site.complete().status_code == 200
    serve.fault = None
    site.wait_until(lambda health: not any(m["available"] for m in health["models"].values()))
    # Scaled to 0 is what somebody asked for.
    assert site.get("/health")["status"] == "ok"
    for model in serve.models.values():
        model.status = "DEPLOYING"
    site.wait_until(lambda health: health["status"] == "degraded")


@pytest.mark.parametrize(
    ("host", "keys", "authorization", "status"),
    [
        ("127.0.0.1", "", "", 200),
        ("0.0.0.0", "", "", 403),
        ("0.0.0.0", " one , two ", "Bearer two", 200),
        ("0.0.0.0", "one,two", "Bearer three", 401),
        ("127.0.0.1", "one", "", 401),
    ],
)
def test_who_may(
    site: Site, monkeypatch: pytest.MonkeyPatch, host: str, keys: str, *, authorization: str,
    status: int,
) -> None:  # fmt: skip
    monkeypatch.setattr("deployments.router.server.serve_host", lambda: host)
    monkeypatch.setitem(os.environ, "DYNAMIC_LLM_SCHEDULER_API_KEYS", keys)
    site.app = site.router.__serve_build_asgi_app__()
    headers = {"authorization": authorization}
    body = {"model": "auto", "prompt": "x"}
    assert site.request("GET", "/v1/models", headers=headers).status_code == status
    answer = site.request("POST", "/v1/completions", headers=headers, json=body)
    assert answer.status_code == status
    assert site.get("/health")["status"] == "ok"


def test_a_slow_start_of_ray_is_a_warning_and_no_fault(site: Site) -> None:
    # This process was not started with the flags.
    health = site.get("/health")
    assert health["status"] == "ok"
    assert "RAY_SERVE_ENABLE_HA_PROXY=1" in health["warnings"][0]
