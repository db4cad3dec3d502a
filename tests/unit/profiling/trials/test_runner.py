from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import ray.serve
from fake_replicas import FakeReplica, FakeServe
from ray.exceptions import ActorDiedError

from profiling.errors import TrialError
from profiling.trials import runner
from profiling.trials.log import Trial
from profiling.trials.runner import Replica, TrialRunner, discover
from profiling.trials.workload import TrialPlan

PLAN = TrialPlan(input_tokens=20, output_tokens=6, concurrency=1, repeat=0, seed=7)
FOUR = TrialPlan(input_tokens=20, output_tokens=6, concurrency=4, repeat=0, seed=7)


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> FakeServe:
    fake = FakeServe(FakeReplica("m"))
    monkeypatch.setattr(ray.serve, "get_deployment_handle", fake.get_deployment_handle)
    monkeypatch.setattr(runner, "IDLE_POLL_S", 0.001)
    monkeypatch.setattr(runner, "IDLE_TIMEOUT_S", 0.02)
    runner.model_handle.cache_clear()
    return fake


def described(replica: FakeReplica) -> Replica:
    return Replica.of(replica.describe())


def trial_runner(serve: FakeServe, run_id: str = "run") -> TrialRunner:
    """Measures the first replica; the others are its neighbours."""
    first, *others = map(described, serve.replicas)
    return TrialRunner(run_id, first, others)


def run(serve: FakeServe, plan: TrialPlan = PLAN, attempts: int = 3) -> Trial | None:
    return asyncio.run(trial_runner(serve).run(plan, attempts=attempts))


def test_a_trial_is_what_the_replica_measured(serve: FakeServe) -> None:
    trial = run(serve)
    assert trial is not None
    assert (trial.run_id, trial.model, trial.accelerator) == ("run", "m", "cpu")
    assert (trial.node_id, trial.replica_id) == ("n1", "r1")
    assert (trial.concurrency, trial.input_tokens, trial.output_tokens) == (1, 20, 6)
    assert trial.runtime_s == pytest.approx(0.06 + 0.02)
    assert trial.energy_joules == pytest.approx(0.6 + 0.2)
    assert (trial.ttft_s, trial.queue_time_s) == (0.25, 0.5)
    assert (trial.energy_source, trial.cached_input_tokens) == ("cpu_time", 0)


def test_side_by_side_the_mean_counts(serve: FakeServe) -> None:
    trial = run(serve, FOUR)
    assert trial is not None
    assert trial.concurrency == 4
    # The mean of 0, 2, 2 and 2, rounded down.
    assert trial.cached_input_tokens == 1
    assert serve.replicas[0].started == 4


def test_no_prompt_is_sent_twice(serve: FakeServe) -> None:
    replica = serve.replicas[0]
    run(serve, FOUR)
    # The same plan of the same run, resumed.
    run(serve, FOUR)
    asyncio.run(trial_runner(serve, "other").run(FOUR, attempts=1))
    assert len({tuple(prompt) for prompt in replica.prompts}) == 12
    assert {len(prompt) for prompt in replica.prompts} == {20}
    assert max(max(prompt) for prompt in replica.prompts) < 500


def once(disturb: Callable[[FakeReplica], None]) -> Callable[[FakeReplica], None]:
    """Disturb the first answer only."""
    left = [disturb]

    def on_answer(replica: FakeReplica) -> None:
        while left:
            left.pop()(replica)

    return on_answer


def another_came_and_went(replica: FakeReplica) -> None:
    replica.started += 1


def another_still_runs(replica: FakeReplica) -> None:
    replica.started += 1
    replica.ongoing += 1


@pytest.mark.parametrize("neighbour", [False, True])
def test_a_touched_trial_is_repeated(serve: FakeServe, neighbour: bool) -> None:
    serve.replicas.append(FakeReplica("other"))
    touched = serve.replicas[neighbour]
    serve.replicas[0].on_answer = once(lambda _: another_came_and_went(touched))
    assert run(serve) is not None
    assert len(serve.replicas[0].prompts) == 2
    assert serve.replicas[0].prompts[0] != serve.replicas[0].prompts[1]


def test_a_trial_that_is_always_touched_is_given_up(serve: FakeServe) -> None:
    replica = serve.replicas[0]
    replica.on_answer = another_came_and_went
    assert run(serve, attempts=3) is None
    assert len(replica.prompts) == 3


@pytest.mark.parametrize("neighbour", [False, True])
def test_a_request_that_was_there_before_touches_it_too(serve: FakeServe, neighbour: bool) -> None:
    serve.replicas.append(FakeReplica("other"))
    busy = serve.replicas[neighbour]
    busy.ongoing = 1

    async def scenario() -> Trial | None:
        task = asyncio.create_task(trial_runner(serve).run(PLAN, attempts=1))
        await asyncio.sleep(0.005)
        # It waits instead of measuring beside it.
        assert serve.replicas[0].prompts == []
        busy.ongoing = 0
        return await task

    assert asyncio.run(scenario()) is not None


def test_a_device_that_is_never_idle(serve: FakeServe) -> None:
    serve.replicas[0].ongoing = 1
    assert run(serve) is None
    assert serve.replicas[0].prompts == []


def test_what_still_runs_afterwards_is_waited_for(serve: FakeServe) -> None:
    replica = serve.replicas[0]
    replica.on_answer = once(another_still_runs)

    async def scenario() -> Trial | None:
        task = asyncio.create_task(trial_runner(serve).run(PLAN, attempts=2))
        await asyncio.sleep(0.005)
        assert len(replica.prompts) == 1
        replica.ongoing = 0
        return await task

    assert asyncio.run(scenario()) is not None
    assert len(replica.prompts) == 2


def test_another_replica_that_answers_is_an_error(serve: FakeServe) -> None:
    measured = trial_runner(serve)
    serve.replicas[0] = FakeReplica("m", "r2")
    with pytest.raises(TrialError, match="replica r1 is gone"):
        asyncio.run(measured.run(PLAN, attempts=3))


def refuse(_: FakeReplica) -> None:
    raise ActorDiedError()


def test_a_replica_that_dies_is_an_error_of_its_trial(serve: FakeServe) -> None:
    serve.replicas[0].on_answer = refuse
    with pytest.raises(TrialError, match="m: ActorDiedError"):
        run(serve)


def test_a_model_that_refuses(serve: FakeServe, monkeypatch: pytest.MonkeyPatch) -> None:
    async def answer(*_: Any) -> Any:
        return 400, b'{"error": "too long"}', b""

    monkeypatch.setattr(serve.replicas[0], "answer", answer, raising=False)
    with pytest.raises(TrialError, match=r"m: .*400 .*too long"):
        run(serve)


def test_the_warm_up_is_one_request(serve: FakeServe) -> None:
    asyncio.run(trial_runner(serve).warm_up(seed=1))
    assert [len(prompt) for prompt in serve.replicas[0].prompts] == [16]


def test_every_running_replica_is_found(serve: FakeServe) -> None:
    serve.replicas += [FakeReplica("m", "r2", "n2"), FakeReplica("other", "r3")]
    found = asyncio.run(discover(["m", "gone", "other"]))
    assert [(r.model, r.replica_id, r.place) for r in found] == [
        ("m", "r1", ("n1", "cpu")),
        ("m", "r2", ("n2", "cpu")),
        ("other", "r3", ("n1", "cpu")),
    ]


def test_a_model_that_never_answers_is_not_found(
    serve: FakeServe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "DISCOVERY_TIMEOUT_S", 0.01)

    class Silent:
        async def results_async(self) -> Any:
            await asyncio.Event().wait()

    monkeypatch.setattr("fake_replicas.FakeHandle.broadcast", lambda *_: Silent())
    assert asyncio.run(discover(["m"])) == []
