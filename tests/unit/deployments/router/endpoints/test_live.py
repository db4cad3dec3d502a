"""`GET /v1/live`, and what its rows say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_serve import ACCURATE, FRUGAL, HANG, ServeDouble, Site, StoreDouble

from cluster.store.load import ReplicaLoad
from deployments.router.access.keys import hash_of
from deployments.router.endpoints.live import decision_row


def candidate(model: str, energy_joules: float) -> dict[str, Any]:
    return {
        "model": model,
        "score": 0.5,
        "output_tokens": 8,
        "runtime_s": 1.0,
        "energy_joules": energy_joules,
    }


def record(model: str, *candidates: dict[str, Any], joules: float | None = 12.0) -> dict[str, Any]:
    return {
        "decision_id": "d1",
        "finished_at": 5.0,
        "model": model,
        "policy": "weighted",
        "weights": {"accuracy": 1.0, "energy": 0.0, "time": 0.0},
        "candidates": list(candidates),
        "observation": {
            "output_tokens": 9,
            "runtime_s": 1.5,
            "energy_joules": joules,
            "energy_source": "nvml",
        },
        "error": None,
    }


def test_what_is_saved_against_the_largest_model() -> None:
    # Predicted 10 J of 40 J; 12 J were taken, so the largest would have taken 48 J.
    row = decision_row(record("small", candidate("small", 10.0), candidate("large", 40.0)))
    assert (row["largest_model"], row["energy_saved_joules"]) == ("large", pytest.approx(36.0))
    assert row["predicted"] == {"output_tokens": 8, "runtime_s": 1.0, "energy_joules": 10.0}
    assert row["actual"] == {"output_tokens": 9, "runtime_s": 1.5, "energy_joules": 12.0}
    assert row["scores"] == {"small": 0.5, "large": 0.5}


def test_the_largest_model_saves_nothing() -> None:
    row = decision_row(record("large", candidate("large", 40.0), candidate("small", 10.0)))
    assert (row["largest_model"], row["energy_saved_joules"]) == ("large", 0.0)
    equals = decision_row(record("b", candidate("a", 40.0), candidate("b", 40.0)))
    assert (equals["largest_model"], equals["energy_saved_joules"]) == ("b", 0.0)


def test_nothing_is_made_up_where_something_is_unknown() -> None:
    unmeasured = decision_row(record("small", candidate("small", 10.0), joules=None))
    assert unmeasured["energy_saved_joules"] is None
    free = decision_row(record("small", candidate("small", 0.0), candidate("large", 40.0)))
    assert (free["largest_model"], free["energy_saved_joules"]) == ("large", None)
    unprofiled = decision_row(record("small"))
    assert (unprofiled["largest_model"], unprofiled["predicted"]) == (None, None)
    cut = record("small", candidate("small", 10.0)) | {"observation": None, "error": "cut"}
    assert decision_row(cut)["actual"] is None
    assert decision_row(cut)["error"] == "cut"


def test_another_model_answered_after_a_fault() -> None:
    broken = record("small", candidate("small", 10.0), candidate("large", 40.0))
    broken["attempts"] = [{"model": "small"}, {"model": "large"}]
    row = decision_row(broken)
    assert (row["model"], row["attempts"]) == ("large", 2)
    assert row["energy_saved_joules"] == 0.0
    assert row["predicted"]["energy_joules"] == 40.0


@pytest.mark.parametrize(("joules", "spent", "saved"), [(2.0, 14.0, -2.0), (None, None, None)])
def test_answers_that_were_rejected_count_as_well(
    joules: float | None, spent: float | None, saved: float | None
) -> None:
    climbed = record("small", candidate("small", 10.0), candidate("large", 40.0))
    judged = {"accepted": False, "runtime_s": 0.5, "energy_joules": joules}
    climbed["attempts"] = [{"model": "small", "judged": judged}, {"model": "large", "judged": None}]
    row = decision_row(climbed)
    assert row["actual"] == {"output_tokens": 9, "runtime_s": 2.0, "energy_joules": spent}
    assert row["energy_saved_joules"] == saved


def test_decisions_since_a_moment(site: Site, store: StoreDouble) -> None:
    first = site.complete().headers["x-decision-id"]
    view = site.get("/v1/live")
    assert [row["decision_id"] for row in view["decisions"]] == [first]
    assert view["profile_version"] == site.get("/health")["profile_version"]
    second = site.complete().headers["x-decision-id"]
    newer = site.get(f"/v1/live?since={view['now']}")["decisions"]
    assert [row["decision_id"] for row in newer] == [second]
    # Both from the router's memory and from the store's.
    site.wait_until(lambda _: store.archive.state.decision(second))
    again = site.get(f"/v1/live?since={view['now']}")["decisions"]
    assert [row["decision_id"] for row in again] == [second]


@pytest.mark.parametrize("since", ["yesterday", "nan", "inf", "-1"])
def test_since_must_be_a_time(site: Site, since: str) -> None:
    refused = site.request("GET", f"/v1/live?since={since}")
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "since")


def test_decisions_are_for_administrators(start_site: Callable[..., Site], tmp_path: Path) -> None:
    keys = tmp_path / "keys.yaml"
    keys.write_text(
        f"- {{name: chief, sha256: {hash_of('one')}, admin: true}}\n"
        f"- {{name: guest, sha256: {hash_of('two')}}}\n"
    )
    site = start_site(keys_file=str(keys))
    chief, guest = ({"authorization": f"Bearer {key}"} for key in ("one", "two"))
    body = {"model": "auto", "prompt": "x"}
    assert site.request("POST", "/v1/completions", json=body, headers=guest).status_code == 200
    for headers, shown in ((chief, True), (guest, False)):
        view = site.get("/v1/live", headers=headers)
        assert (view["decisions_shown"], len(view["decisions"])) == (shown, int(shown))
        assert [row["model"] for row in view["models"]] == [ACCURATE, FRUGAL]
    assert site.request("GET", "/v1/live").status_code == 401


def test_models_and_replicas(site: Site, store: StoreDouble, serve: ServeDouble) -> None:
    assert site.get("/v1/live")["replicas"] == []
    load = ReplicaLoad(
        FRUGAL, "r1", "n1", "test", "GPU-1", 3, {"other": 3}, 100, 50.0, 210.5, "stuck"
    )
    store.state.report_load(load)
    serve.models[ACCURATE].replicas = 0
    site.wait_until(lambda health: not health["models"][ACCURATE]["available"])
    site.wait_until(lambda _: site.get("/v1/live")["replicas"])
    view = site.get("/v1/live")
    assert view["replicas"] == [
        {
            "model": FRUGAL,
            "replica_id": "r1",
            "node_id": "n1",
            "accelerator": "test",
            "device": "GPU-1",
            "ongoing": 3,
            "tokens_in_flight": 100,
            "tokens_per_s": 50.0,
            "power_watts": 210.5,
            "meter_fault": "stuck",
        }
    ]
    models = {row.pop("model"): row for row in view["models"]}
    assert (models[ACCURATE]["available"], models[ACCURATE]["reason"]) == (
        False,
        "scaled to 0 replicas",
    )
    assert (models[FRUGAL]["ongoing"], models[FRUGAL]["slots"]) == (3, 16)


def test_drift_shows_what_was_learnt(site: Site) -> None:
    unknown = {"factor": 1.0, "low": None, "high": None, "observations": 0}
    drift = {row["model"]: row["drift"] for row in site.get("/v1/live")["models"]}
    assert drift[FRUGAL] == {"runtime": unknown, "energy": unknown}
    site.complete(model=FRUGAL)
    drift = {row["model"]: row["drift"] for row in site.get("/v1/live")["models"]}
    # It was predicted to take a second and took a quarter of one.
    assert drift[FRUGAL]["runtime"]["observations"] == 1
    assert drift[FRUGAL]["runtime"]["factor"] < 1
    assert drift[ACCURATE]["runtime"] == unknown


def test_the_store_may_be_away(site: Site, store: StoreDouble) -> None:
    own = site.complete().headers["x-decision-id"]
    store.die()
    assert [row["decision_id"] for row in site.get("/v1/live")["decisions"]] == [own]


@pytest.mark.parametrize("site", [{"request_timeout_s": 1.0}], indirect=True)
def test_a_failure_is_told_of(site: Site, serve: ServeDouble) -> None:
    serve.models[FRUGAL].reply = HANG
    assert site.complete(model=FRUGAL).status_code == 504
    (row,) = site.get("/v1/live")["decisions"]
    assert (row["model"], row["policy"], row["actual"]) == (FRUGAL, "pinned", None)
    assert "within 1 s" in row["error"]
