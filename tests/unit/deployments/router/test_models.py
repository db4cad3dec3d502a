from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from fake_serve import ACCURATE, FRUGAL, HANG, PROFILES, Model, ServeDouble, profile
from ray.exceptions import ActorDiedError

from cluster.store.load import LoadSnapshot, LoadView, ReplicaLoad
from deployments.router.models import ModelDirectory
from deployments.router.sync.shared import SharedState
from scheduler.capabilities import Feature
from scheduler.costs.profiles import ProfileSet
from scheduler.priority import Priority
from scheduler.types import ModelState


@pytest.fixture
def directory(serve: ServeDouble) -> ModelDirectory:
    directory = ModelDirectory()
    directory.configure([ACCURATE, FRUGAL])
    return directory


def shared() -> SharedState:
    """Nothing is known of other routers, and nothing was learnt."""
    return SharedState("this router")


def refreshed(directory: ModelDirectory, profiles: ProfileSet = PROFILES) -> dict[str, ModelState]:
    asyncio.run(directory.refresh())
    return {state.model: state for state in directory.cluster_state(profiles, shared(), {}).models}


def test_before_the_first_look_nothing_is_up(directory: ModelDirectory) -> None:
    states = directory.cluster_state(PROFILES, shared(), {}).models
    assert [s.unavailable for s in states] == ["not deployed"] * 2


def test_models_that_run_say_who_they_are(directory: ModelDirectory, serve: ServeDouble) -> None:
    serve.models[FRUGAL].replicas = 3
    serve.models[FRUGAL].max_model_len = 77
    states = refreshed(directory)
    assert list(states) == [ACCURATE, FRUGAL]
    assert states[FRUGAL] == ModelState(
        FRUGAL,
        max_model_len=77,
        profile=PROFILES.find(FRUGAL),
        ongoing=0,
        replicas=3,
        slots=16,
        queue=64,
    )


def test_the_state_of_the_cluster(directory: ModelDirectory) -> None:
    state = directory.cluster_state(PROFILES, shared(), {str: FRUGAL})
    assert (state.profile_version, state.find(str)) == (PROFILES.version, FRUGAL)
    assert state.reference is None


@pytest.mark.parametrize(
    ("replicas", "status", "unavailable"),
    [
        (0, "RUNNING", "scaled to 0 replicas"),
        (0, "DEPLOYING", "deploying"),
        (0, "DEPLOY_FAILED", "deploy_failed"),
        (1, "UNHEALTHY", None),
        (1, "DEPLOYING", None),
    ],
)
def test_why_a_model_is_not_available(
    directory: ModelDirectory,
    serve: ServeDouble,
    replicas: int,
    status: str,
    unavailable: str | None,
) -> None:
    serve.models[FRUGAL].replicas, serve.models[FRUGAL].status = replicas, status
    states = refreshed(directory)
    assert states[FRUGAL].unavailable == unavailable
    assert states[ACCURATE].unavailable is None


def test_an_application_without_the_deployment_yet(
    directory: ModelDirectory, serve: ServeDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = serve.status()
    status.applications[FRUGAL].status = "DEPLOYING"
    status.applications[FRUGAL].deployments = {}
    del status.applications[ACCURATE]
    monkeypatch.setattr("ray.serve.status", lambda: status)
    states = refreshed(directory)
    assert states[FRUGAL].unavailable == "deploying"
    assert states[ACCURATE].unavailable == "not deployed"


def test_a_controller_that_starts_anew_takes_no_model_away(
    directory: ModelDirectory, serve: ServeDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = refreshed(directory)
    status = serve.status()
    for application in status.applications.values():
        application.status, application.deployments = "DEPLOYING", {}
    links = {ACCURATE: 2, FRUGAL: 0}
    with monkeypatch.context() as patched:
        patched.setattr("ray.serve.status", lambda: status)
        patched.setattr(directory.links, "open", links.get)
        after = refreshed(directory)
    assert after[ACCURATE] == replace(before[ACCURATE], replicas=2)
    assert after[FRUGAL].unavailable == "deploying"
    assert refreshed(directory) == before


def test_a_status_call_that_fails_changes_nothing(
    directory: ModelDirectory, serve: ServeDouble
) -> None:
    before = refreshed(directory)
    serve.fault = RuntimeError("controller is away")
    with pytest.raises(RuntimeError):
        asyncio.run(directory.refresh())
    assert {s.model: s for s in directory.cluster_state(PROFILES, shared(), {}).models} == before


@pytest.mark.parametrize("answer", [ActorDiedError(), HANG])
def test_a_model_that_does_not_say_who_it_is_takes_nothing(
    directory: ModelDirectory, serve: ServeDouble, monkeypatch: pytest.MonkeyPatch, answer: Any
) -> None:
    monkeypatch.setattr("deployments.router.models.DESCRIBE_TIMEOUT_S", 0.5)
    serve.models[FRUGAL].describes = [answer, answer]
    for _ in range(2):
        states = refreshed(directory)
        assert states[ACCURATE].unavailable is None
        told = states[FRUGAL].unavailable
        assert told is not None
        assert told.startswith("does not answer: ")
    assert refreshed(directory)[FRUGAL].unavailable is None


def test_it_takes_nothing_while_it_is_asked(directory: ModelDirectory, serve: ServeDouble) -> None:
    serve.models[FRUGAL].describes = [ActorDiedError(), HANG]
    refreshed(directory)

    async def while_asked() -> str | None:
        looking = asyncio.create_task(directory.refresh())
        async with asyncio.timeout(30):
            while serve.models[FRUGAL].describes:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        looking.cancel()
        await asyncio.wait({looking})
        return directory[FRUGAL].unavailable

    assert asyncio.run(while_asked()) == "does not answer: ActorDiedError"


def test_an_application_that_vanishes_between_two_looks(
    directory: ModelDirectory, serve: ServeDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = serve.status()
    monkeypatch.setattr("ray.serve.status", lambda: status)
    del serve.models[FRUGAL]
    states = refreshed(directory)
    assert states[FRUGAL].unavailable == "does not answer: RayServeException"
    assert states[ACCURATE].unavailable is None


def test_a_model_that_is_deployed_anew_is_asked_again(
    directory: ModelDirectory, serve: ServeDouble
) -> None:
    model = serve.models[FRUGAL]
    assert refreshed(directory)[FRUGAL].max_model_len == 1000
    # A rolling update: replicas of before answer until the new ones run.
    model.status = "DEPLOYING"
    assert refreshed(directory)[FRUGAL].max_model_len == 1000
    model.status, model.max_model_len = "RUNNING", 2000
    assert refreshed(directory)[FRUGAL].max_model_len == 2000
    model.describes = [HANG]
    assert refreshed(directory)[FRUGAL].max_model_len == 2000
    model.describes, model.max_model_len = [], 3000
    model.replicas = 0
    assert refreshed(directory)[FRUGAL].max_model_len is None
    model.replicas = 1
    assert refreshed(directory)[FRUGAL].max_model_len == 3000


def test_the_profile_of_its_own_accelerator_comes_first(directory: ModelDirectory) -> None:
    here = profile(FRUGAL, 1.0, 20.0, 0.6)
    elsewhere = replace(here, accelerator="other")
    both, other = ProfileSet((elsewhere, here)), ProfileSet((elsewhere,))
    assert refreshed(directory, both)[FRUGAL].profile == here
    assert refreshed(directory, other)[FRUGAL].profile == elsewhere
    assert refreshed(directory, other)[ACCURATE].profile is None


@pytest.mark.parametrize(
    ("replicas", "under_trial", "unavailable"),
    [(1, ("r1",), "being profiled"), (2, ("r1",), None), (2, ("r1", "r2"), "being profiled")],
)
def test_a_model_whose_replicas_are_all_under_trial(
    directory: ModelDirectory,
    serve: ServeDouble,
    replicas: int,
    under_trial: tuple[str, ...],
    unavailable: str | None,
) -> None:
    serve.models[FRUGAL].replicas = replicas
    asyncio.run(directory.refresh())
    directory.set_trials({FRUGAL: under_trial, "unknown": ("r9",)})
    assert directory.why_not(FRUGAL) == unavailable
    assert directory[FRUGAL].under_trial == under_trial
    directory.set_trials({})
    assert directory.why_not(FRUGAL) is None


@pytest.mark.parametrize(("replicas", "told"), [(1, "its engine hangs"), (2, None)])
def test_a_replica_that_hangs_is_avoided(
    directory: ModelDirectory, serve: ServeDouble, replicas: int, told: str | None
) -> None:
    serve.models[FRUGAL].replicas = replicas
    asyncio.run(directory.refresh())
    loads = LoadView("router")
    load = ReplicaLoad(FRUGAL, "r1", "node", "test", "cpu", 0, hung=True)
    loads.take(LoadSnapshot((load,)), {})
    directory.take(loads)
    assert directory[FRUGAL].avoid == ("r1",)
    assert directory.why_not(FRUGAL) == told
    loads.take(LoadSnapshot((replace(load, hung=False),)), {})
    directory.take(loads)
    assert directory.why_not(FRUGAL) is None


def test_one_that_hangs_and_is_being_replaced_takes_none_of_the_others_away(
    directory: ModelDirectory, serve: ServeDouble
) -> None:
    # Serve has stopped r1, whose last report still counts.
    serve.models[FRUGAL].replicas = 1
    asyncio.run(directory.refresh())
    loads = LoadView("router")
    hung = ReplicaLoad(FRUGAL, "r1", "node", "test", "cpu", 0, hung=True)
    loads.take(LoadSnapshot((hung, replace(hung, replica_id="r2", hung=False))), {})
    directory.take(loads)
    assert directory[FRUGAL].avoid == ("r1",)
    assert directory.why_not(FRUGAL) is None


def test_a_new_configuration_keeps_what_is_known(
    directory: ModelDirectory, serve: ServeDouble
) -> None:
    refreshed(directory)
    directory[FRUGAL].by_priority[Priority.NORMAL] = 4
    serve.models["new"] = Model("new")
    directory.configure(["new", FRUGAL])
    states = directory.cluster_state(PROFILES, shared(), {}).models
    assert [(s.model, s.ongoing, s.unavailable) for s in states] == [
        ("new", 0, "not deployed"),
        (FRUGAL, 4, None),
    ]
    assert ACCURATE not in directory
    assert FRUGAL in directory
    assert [entry.model for entry in directory.entries()] == ["new", FRUGAL]


def test_who_reports_runs_and_has_said_what_it_is(serve: ServeDouble) -> None:
    """Neither Serve's count, which may be old, nor a call to the replica is waited for."""
    directory = ModelDirectory()
    directory.configure([ACCURATE])
    serve.models[ACCURATE].replicas = 0
    serve.models[ACCURATE].status = "DEPLOYING"
    loads = LoadView("me")
    loads.take(LoadSnapshot((ReplicaLoad(ACCURATE, "r1", "n", "test", "cpu", 0),)), {})
    feature = next(iter(Feature))
    told = {"accelerator": "new", "capabilities": {"lacks": {feature.value: "why not"}}}
    directory.hear({ACCURATE: {"r0": {"accelerator": "old"}, "r1": told}})
    directory.take(loads)
    asyncio.run(directory.refresh())
    entry = directory[ACCURATE]
    assert (entry.unavailable, entry.replicas, entry.accelerator) == (None, 1, "new")
    assert entry.capabilities.lacks == {feature: "why not"}
    assert serve.models[ACCURATE].asked == 0
    loads.take(LoadSnapshot(()), {})
    directory.hear({})
    directory.take(loads)
    asyncio.run(directory.refresh())
    assert (entry.unavailable, entry.replicas) == ("deploying", 0)


def test_a_model_of_which_no_replica_reports_is_not_woken_by_looking(
    directory: ModelDirectory, serve: ServeDouble
) -> None:
    loads = LoadView("router")
    loads.take(LoadSnapshot((ReplicaLoad(ACCURATE, "r1", "node", "test", "cpu", 0),)), {})
    directory.take(loads)
    # Serve was seen to run both some seconds ago.
    refreshed(directory)
    assert directory.why_not(ACCURATE) is None
    assert directory.why_not(FRUGAL) == "no replica has reported yet"
    assert (serve.models[ACCURATE].asked, serve.models[FRUGAL].asked) == (1, 0)
