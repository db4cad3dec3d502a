from __future__ import annotations

import json

import pytest
from scheduler_examples import THREE, cluster, constant, request

from scheduler.engine import Scheduler
from scheduler.serialization import decision_to_dict
from scheduler.types import Metric, ModelState, Weights


def test_the_keys_of_the_contract() -> None:
    state = cluster(*THREE.models, ModelState("new"))
    decision = Scheduler().decide(request(state, weights=Weights(0.7, 0.2, 0.1)), state)
    data = json.loads(json.dumps(decision_to_dict(decision), allow_nan=False))

    assert list(data) == [
        "decision_id", "model", "policy", "weights", "profile_version", "candidates", "excluded",
    ]  # fmt: skip
    assert data["model"] == data["candidates"][0]["model"] == decision.model
    assert data["weights"] == {"accuracy": 0.7, "energy": 0.2, "time": 0.1}
    assert data["excluded"] == [{"model": "new", "reason": decision.excluded[0].reason}]
    for row, candidate in zip(data["candidates"], decision.candidates, strict=True):
        prediction = candidate.prediction
        stages = row.pop("stages")
        assert row == {
            "model": candidate.model,
            "score": candidate.score,
            "input_tokens": 100,
            "output_tokens": 100,
            "runtime_s": prediction.runtime_s,
            "runtime_interval_s": [0.5 * prediction.runtime_s, 2 * prediction.runtime_s],
            "energy_joules": prediction.energy_joules,
            "energy_interval_joules": pytest.approx(
                [0.8 * prediction.energy_joules, 1.25 * prediction.energy_joules]
            ),
            "accuracy": candidate.accuracy,
            "accuracy_imputed": False,
            "extrapolates": False,
        }
        assert list(stages) == ["runtime", "energy", "accuracy"]
        time = candidate.stages[Metric.TIME]
        assert stages["runtime"] == {
            "z": time.z, "log": time.log, "minmax": time.minmax,
            "softmax": time.softmax, "rebased": time.rebased,
        }  # fmt: skip
        assert stages["energy"]["z"] == candidate.stages[Metric.ENERGY].z
        assert stages["accuracy"]["z"] == candidate.stages[Metric.ACCURACY].z


def test_a_pinned_model_without_a_profile() -> None:
    state = cluster(ModelState("new"))
    data = decision_to_dict(Scheduler().pin(request(state), state, "new"))
    assert (data["model"], data["policy"], data["candidates"]) == ("new", "pinned", [])


def test_an_imputed_accuracy_says_so() -> None:
    state = cluster(constant("a", 1.0, 1.0, None), constant("b", 2.0, 2.0, 0.6))
    rows = decision_to_dict(Scheduler().decide(request(state), state))["candidates"]
    assert {r["model"]: r["accuracy_imputed"] for r in rows} == {"a": True, "b": False}
