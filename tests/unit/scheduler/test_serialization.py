from __future__ import annotations

import json
from dataclasses import replace

import pytest
from scheduler_examples import THREE, cluster, constant, request

from scheduler.decide import Scheduler
from scheduler.preferences import Metric, Weights
from scheduler.prompts.quality import EstimatedBy
from scheduler.serialization import decision_to_dict
from scheduler.types import Correction, Interval, ModelState, QualityEstimate


def test_the_keys_of_the_contract() -> None:
    # Two requests beside this one on `fast`, one of them beyond its slots, and a history of drift.
    fast = replace(
        THREE.models[2],
        ongoing=2,
        slots=2,
        runtime_correction=Correction(1.5),
        energy_correction=Correction(0.5),
    )
    state = cluster(*THREE.models[:2], fast, ModelState("new"))
    decision = Scheduler().decide(request(state, weights=Weights(0.7, 0.2, 0.1)), state)
    data = json.loads(json.dumps(decision_to_dict(decision), allow_nan=False))

    assert list(data) == [
        "decision_id", "model", "policy", "weights", "profile_version", "candidates", "excluded",
        "task", "quality_source", "limits", "rules", "canary", "bandit", "shadow", "session",
        "cascade", "plan",
    ]  # fmt: skip
    assert data["model"] == data["candidates"][0]["model"] == decision.model
    assert data["weights"] == {"accuracy": 0.7, "energy": 0.2, "time": 0.1}
    excluded = {"model": "new", "kind": "no_profile", "reason": decision.excluded[0].reason}
    assert data["excluded"] == [excluded | {"field": None}]
    for row, candidate in zip(data["candidates"], decision.candidates, strict=True):
        prediction = candidate.prediction
        stages = row.pop("stages")
        assert row == {
            "model": candidate.model,
            "score": candidate.score,
            "input_tokens": 100,
            "input_tokens_exact": True,
            "cached_input_tokens": 0,
            "output_tokens": 100,
            "output_tokens_interval": [1, 300],
            "runtime_s": prediction.runtime_s,
            "runtime_interval_s": pytest.approx(
                [0.5 * prediction.runtime_s, 2 * prediction.runtime_s]
            ),
            "energy_joules": prediction.energy_joules,
            "energy_interval_joules": pytest.approx(
                [0.8 * prediction.energy_joules, 1.25 * prediction.energy_joules]
            ),
            "accuracy": candidate.accuracy,
            "accuracy_imputed": False,
            "accuracy_interval": None,
            "familiarity": None,
            "concurrency": prediction.concurrency,
            "sequences": 1,
            "wait_s": prediction.wait_s,
            "runtime_factor": prediction.runtime_factor,
            "energy_factor": prediction.energy_factor,
            "extrapolates": False,
            "profile_origin": "measured",
            "profile_trials": 0,
        }
        assert list(stages) == ["runtime", "energy", "accuracy"]
        time = candidate.stages[Metric.TIME]
        assert stages["runtime"] == {
            "z": time.z, "log": time.log, "minmax": time.minmax,
            "softmax": time.softmax, "rebased": time.rebased,
        }  # fmt: skip
        assert stages["energy"]["z"] == candidate.stages[Metric.ENERGY].z
        assert stages["accuracy"]["z"] == candidate.stages[Metric.ACCURACY].z
    (row,) = (row for row in data["candidates"] if row["model"] == "fast")
    # 1.5 s for each of two rounds; the second half of a round is over when its turn comes.
    assert (row["concurrency"], row["runtime_s"], row["wait_s"]) == (2, 1.5 * 1.5, 0.75)
    assert (row["runtime_factor"], row["energy_factor"]) == (1.5, 0.5)


def test_a_pinned_model_without_a_profile() -> None:
    state = cluster(ModelState("new"))
    data = decision_to_dict(Scheduler().pin(request(state), state, "new"))
    assert (data["model"], data["policy"], data["candidates"]) == ("new", "pinned", [])


def test_an_imputed_accuracy_says_so() -> None:
    state = cluster(constant("a", 1.0, 1.0, None), constant("b", 2.0, 2.0, 0.6))
    rows = decision_to_dict(Scheduler().decide(request(state), state))["candidates"]
    assert {r["model"]: r["accuracy_imputed"] for r in rows} == {"a": True, "b": False}


def test_an_estimate_for_the_prompt_is_shown_with_its_source() -> None:
    quality = {"fast": QualityEstimate(0.95, Interval(0.9, 0.97), familiarity=0.5)}
    asked = request(
        THREE, task="code", quality=quality, reports={EstimatedBy.name: EstimatedBy("v7")}
    )
    data = decision_to_dict(Scheduler().decide(asked, THREE))
    assert (data["task"], data["quality_source"]) == ("code", "quality model v7")
    assert data["limits"] is None
    rows = {row["model"]: row for row in data["candidates"]}
    assert rows["fast"]["accuracy"] == 0.95
    assert rows["fast"]["accuracy_interval"] == [0.9, 0.97]
    assert rows["fast"]["familiarity"] == 0.5
    # The others have what their profiles say.
    assert rows["accurate"]["accuracy"] == 0.9
    assert rows["accurate"]["accuracy_interval"] is None
