"""States are kept, and never out of date: each is compared with one that is made from nothing."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from typing import Any

import pytest

from cluster.store.load import LoadSnapshot, ReplicaLoad
from deployments.links.frames import Frame, ModelRequest, Reply
from deployments.links.server import LinkServer
from deployments.router.models import ModelDirectory
from deployments.router.sync.shared import SharedState
from scheduler.costs.learnt.learning import Lesson
from scheduler.costs.observations import Outcome
from scheduler.costs.profiles import LinearModel, ModelProfile, ProfileSet
from scheduler.priority import Priority
from scheduler.types import ModelState

MODELS = [f"m{number}" for number in range(6)]


def profiles(seconds: float) -> ProfileSet:
    return ProfileSet(
        tuple(
            ModelProfile(
                model=model,
                accelerator="test",
                runtime=LinearModel("linear", (seconds, 0.001, 0.01)),
                energy=LinearModel("linear", (1.0, 0.01, 0.1)),
                energy_source="nvml",
                input_tokens_range=(1, 1000),
                output_tokens_range=(1, 500),
                accuracy=0.5,
            )
            for model in MODELS
        )
    )


class Site:
    def __init__(self) -> None:
        self.now = 0.0
        self.profiles = profiles(1.0)
        self.shared = SharedState("me", lambda: self.now)
        self.directory = ModelDirectory()
        self.directory.configure(MODELS)
        self.seen: list[ModelState] = []
        for entry in self.directory.entries():
            entry.replicas, entry.unavailable = 1, None
            entry.description = {"accelerator": "test", "max_num_seqs": 4}
        self.news()

    def news(self, ongoing: int = 1) -> None:
        # Two models on each device.
        loads = [
            ReplicaLoad(m, f"r{n}", "node", "test", f"gpu{n // 2}", ongoing * n)
            for n, m in enumerate(MODELS)
        ]
        own = {e.model: e.ongoing for e in self.directory.entries() if e.ongoing}
        self.shared.loads.take(LoadSnapshot(tuple(loads), 3), own)

    def kept(self, caller: str = "") -> Any:
        return self.directory.cluster_state(self.profiles, self.shared, {}, caller).models

    def built(self) -> int:
        """How many states are other objects than before."""
        before = {id(state) for state in self.seen}
        self.seen = list(self.kept())
        return sum(id(state) not in before for state in self.seen)

    def fresh(self, caller: str = "") -> Any:
        own = self.directory.ongoing()
        return tuple(
            entry.state(
                self.profiles, self.shared, own, self.directory.why_not(entry.model), caller
            )
            for entry in self.directory.entries()
        )


@pytest.fixture
def site() -> Site:
    site = Site()
    assert site.built() == len(MODELS)
    return site


def lesson(model: str) -> Lesson:
    profile = profiles(1.0).find(model)
    assert profile is not None
    outcome = Outcome(
        model=model,
        accelerator="test",
        fit_id=profile.fit_id,
        predicted_runtime_s=1.0,
        told_runtime_s=1.0,
        runtime_s=2.0,
        predicted_energy_joules=1.0,
        told_energy_joules=1.0,
        energy_joules=None,
    )
    return Lesson(outcome, model, "", 10, 20, False)


class Busy:
    """A replica that never answers."""

    async def answer(self, _: ModelRequest) -> Reply:
        await asyncio.Event().wait()
        raise AssertionError

    def stream(self, _: ModelRequest) -> AsyncGenerator[Frame]:
        raise NotImplementedError

    def stopped(self, _: str) -> bytes:
        return b""


async def die(site: Site) -> None:
    """The only replica of a model that a link leads to dies."""
    links, server = site.directory.links, LinkServer(Busy())
    await server.open()
    links.update([ReplicaLoad("m2", "r2", "n", "test", "gpu1", 0, link=server.address)], "me")
    async with asyncio.timeout(5):
        while not (links.open("m2") and server.connections):  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        for connection in list(server.connections):
            connection.abort()
        while links.open("m2"):  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    server.close()
    # It reports no more.
    links.update([], "me")
    assert site.directory.why_not("m2") == "its replicas have died"


CHANGES: dict[str, Callable[[Site], object]] = {
    "a request": lambda s: s.directory["m2"].by_priority.update({Priority.HIGH: 1}),
    "a request of a key": lambda s: s.directory["m1"].taken(Priority.LOW, 2, "key").__enter__(),
    "replicas": lambda s: setattr(s.directory["m3"], "replicas", 2),
    "away": lambda s: setattr(s.directory["m3"], "unavailable", "deploying"),
    "a trial": lambda s: s.directory.set_trials({"m4": ("r4",)}),
    "hung": lambda s: setattr(s.directory["m4"], "hung", ("r4",)),
    "another description": lambda s: setattr(
        s.directory["m0"], "description", {"accelerator": "test", "max_num_seqs": 9}
    ),
    "new profiles": lambda s: setattr(s, "profiles", profiles(2.0)),
    "news of the load": lambda s: s.news(7),
    "a load that is too old": lambda s: setattr(s, "now", 100.0),
    "a lesson": lambda s: s.shared.learning.learn(lesson("m5")),
    "time for the corrections": lambda s: s.shared.learning.corrections.elapse(3600.0),
    "a death": lambda s: asyncio.run(die(s)),
    "fewer models": lambda s: s.directory.configure(MODELS[::2]),
}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("caller", ["", "key", "other"])
def test_every_change_shows_at_once(site: Site, name: str, caller: str) -> None:
    site.shared.learning.learn(lesson("m5"))
    assert site.kept(caller) == site.fresh(caller)
    CHANGES[name](site)
    assert site.kept(caller) == site.fresh(caller)
    assert site.kept() == site.fresh()


def test_what_has_not_changed_is_not_made_again(site: Site) -> None:
    assert site.built() == 0


def test_a_request_makes_its_model_anew_and_what_shares_its_device(site: Site) -> None:
    site.directory["m2"].by_priority[Priority.NORMAL] = 1
    assert site.built() == 2
    # It is busy already.
    site.directory["m2"].by_priority[Priority.NORMAL] = 2
    assert site.built() == 1


def test_a_lesson_is_about_its_model(site: Site) -> None:
    site.shared.learning.learn(lesson("m5"))
    assert site.built() == 1


def test_setting_the_same_again_is_no_change(site: Site) -> None:
    entry = site.directory["m0"]
    entry.replicas, entry.description = entry.replicas, dict(entry.description or {})
    site.directory.set_trials({})
    assert site.built() == 0


def test_any_sequence_of_changes(site: Site) -> None:
    generator = random.Random(7)
    for _ in range(300):
        CHANGES[generator.choice([n for n in CHANGES if n != "fewer models"])](site)
        entry = site.directory[generator.choice(MODELS)]
        entry.by_priority[generator.choice(list(Priority))] = generator.randint(0, 5)
        caller = generator.choice(["", "key", "other"])
        assert site.kept(caller) == site.fresh(caller)
        site.now = generator.choice([site.now, 0.0])
    assert replace(site.kept()[0]) == site.fresh()[0]
