from __future__ import annotations

import json
import time

import pytest
from fake_serve import PROFILES, observation

from deployments.router.delivery.attempts import Attempt
from deployments.router.observe.routing_report import decision_record, routing_object
from scheduler.decide import Scheduler
from scheduler.types import ClusterState, Decision, ModelState, RoutingRequest

ASKED = [Attempt("frugal", replica_id="r1")]


def decision(*, profiled: bool) -> Decision:
    models = tuple(ModelState(p.model, profile=p if profiled else None) for p in PROFILES.profiles)
    request = RoutingRequest("d1", {m.model: 10 for m in models}, output_tokens=20)
    return Scheduler().pin(request, ClusterState(models, "v1"), "frugal")


def test_prediction_and_measurement_stand_side_by_side() -> None:
    report = routing_object(decision(profiled=True), observation("frugal"), ASKED)
    assert report == {
        "decision_id": "d1",
        "model": "frugal",
        "policy": "pinned",
        "rules": [],
        "score": 0.0,
        "predicted": {
            "output_tokens": 20,
            "sequences": 1,
            "runtime_s": pytest.approx(1.0 + 0.01 + 0.2),
            "runtime_interval_s": [pytest.approx(1.21)] * 2,
            "energy_joules": pytest.approx(20.0 + 0.1 + 2.0),
            "energy_interval_joules": [pytest.approx(22.1)] * 2,
            "accuracy": 0.6,
            "concurrency": 1.0,
        },
        "actual": {"output_tokens": 2, "runtime_s": 0.25, "energy_joules": 1.5},
        "energy_joules": 1.5,
        "energy_source": "nvml",
        "session": None,
        "attempts": [
            {
                "model": "frugal",
                "begins": "anew",
                "exact": True,
                "refused": False,
                "replica_id": "r1",
                "output_tokens": None,
                "error": None,
                "judged": None,
            }
        ],
    }


def test_what_is_not_known_is_null() -> None:
    report = routing_object(decision(profiled=False), None, ASKED)
    unknown = ("score", "predicted", "actual", "energy_joules", "energy_source")
    assert [report[name] for name in unknown] == [None] * 5


def test_a_record_is_the_decision_with_its_outcome() -> None:
    before = time.time()
    record = decision_record(decision(profiled=True), observation("frugal"), ASKED)
    assert before <= record["finished_at"] <= time.time()
    assert record["observation"]["replica_id"] == "r1"
    assert record["error"] is None
    assert [c["model"] for c in record["candidates"]] == ["frugal"]
    assert json.loads(json.dumps(record)) == record


def test_a_record_of_a_failure() -> None:
    record = decision_record(decision(profiled=False), None, ASKED, error="gone")
    assert (record["error"], record["observation"], record["candidates"]) == ("gone", None, [])
