"""Runs the trials of all models of one device, one at a time, dealt over the models in turn."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.progress import Progress, TaskID

from profiling.errors import TrialError
from profiling.trials.log import TrialCosts, TrialLog
from profiling.trials.rounds import Pace, can_finish, rounds
from profiling.trials.runner import Replica, TrialRunner
from profiling.trials.workload import FULL, QUICK, TrialPlan, already_run, plan_trials

ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class Options:
    """What decides which trials are run; the same options resume the same run."""

    models: tuple[str, ...]
    quick: bool
    seed: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a device did.

    Attributes:
        measured: Trials that are in the log.
        given_up: Trials that other requests touched at every attempt.
        failed: Models that could not be measured to the end.
        surplus: Model and start of trials of a last round that the time did not suffice for; they
            are in the log, and left out of the fit, so that all models have as many trials.
    """

    measured: int
    given_up: int
    failed: tuple[str, ...]
    surplus: tuple[tuple[str, float], ...] = ()


@dataclass(slots=True)
class _Turn:
    """One model of the device.

    Attributes:
        runs: Costs of the trials that it has had, by index into its plan, `None` for one that was
            given up.
        latest: Start of its last trial, `None` where that was given up.
    """

    replica: Replica
    runner: TrialRunner
    plan: Sequence[TrialPlan]
    runs: dict[int, TrialCosts | None]
    task: TaskID
    pace: Pace
    latest: float | None = None
    failed: bool = False


@dataclass(slots=True)
class Device:
    """Measures the models of one device, one trial at a time.

    Attributes:
        everyone: All replicas of the cluster.
        deadline: `time.monotonic()` at which measuring stops, `None` for never.
    """

    options: Options
    run_id: str
    log: TrialLog
    progress: Progress
    store: Any
    router: Any
    everyone: Sequence[Replica]
    deadline: float | None
    _under_trial: Replica | None = field(default=None, init=False)

    async def measure(self, replicas: Sequence[Replica]) -> Outcome:
        """Every trial of every model of the device that is not done yet, in rounds.

        A round that cannot be finished for all models before the deadline is not begun.
        """
        grid = QUICK if self.options.quick else FULL
        turns = [self._turn(replica) for replica in replicas]
        begun = [len(turn.runs) for turn in turns]
        surplus: tuple[tuple[str, float], ...] = ()
        try:
            for turn in turns:
                if self._seconds_left() > 0:
                    await self._try(turn, self._warm_up(turn))
            for index in rounds(grid, [turn.runs for turn in turns]):
                due = [t for t in turns if not t.failed and index not in t.runs]
                if self._seconds_left() <= 0:
                    break
                if not self._suffices(due, index):
                    # A cheaper one may still have its time.
                    continue
                for turn in due:
                    if self._seconds_left() > 0:
                        await self._try(turn, self._trial(turn, index))
                surplus = _surplus(due, index)
        finally:
            await self._take(None)
        given_up = sum(costs is None for turn in turns for costs in turn.runs.values())
        done = sum(len(turn.runs) for turn in turns) - sum(begun)
        failed = tuple(turn.replica.model for turn in turns if turn.failed)
        return Outcome(done - given_up, given_up, failed, surplus)

    def _turn(self, replica: Replica) -> _Turn:
        grid = QUICK if self.options.quick else FULL
        plan = plan_trials(grid, seed=self.options.seed, max_model_len=replica.max_model_len)
        neighbours = [r for r in self.everyone if r.place == replica.place and r != replica]
        done = already_run(plan, self.log.costs(), replica.model, replica.accelerator)
        planned = grid.configurations if grid.extremes_first else len(plan)
        task = self.progress.add_task(
            f"{replica.model} on {replica.accelerator}",
            total=max(planned, len(done)),
            completed=len(done),
        )
        runner = TrialRunner(self.run_id, replica, neighbours)
        return _Turn(replica, runner, plan, dict(done), task, Pace(replica.accelerator))

    def _seconds_left(self) -> float:
        return float("inf") if self.deadline is None else self.deadline - time.monotonic()

    def _suffices(self, due: Sequence[_Turn], index: int) -> bool:
        """Whether the time suffices for a round."""
        if self.deadline is None:
            return True
        expected = [turn.pace.expects(turn.plan[index]) for turn in due]
        return can_finish(expected, self._seconds_left())

    async def _try(self, turn: _Turn, step: Awaitable[None]) -> None:
        try:
            await step
        except TrialError as error:
            self.progress.console.print(str(error), style="red")
            turn.failed = True

    async def _warm_up(self, turn: _Turn) -> None:
        await self._take(turn.replica)
        await turn.runner.warm_up(self.options.seed)

    async def _trial(self, turn: _Turn, index: int) -> None:
        replica, plan = turn.replica, turn.plan[index]
        began = time.monotonic()
        await self._take(replica)
        # The store forgets who does not say so again.
        await self.store.board.set_trials.remote(replica.model, [replica.replica_id])
        trial = await turn.runner.run(plan, attempts=ATTEMPTS)
        turn.runs[index] = None if trial is None else trial.costs
        turn.latest = None if trial is None else trial.started_at
        if trial is not None:
            self.log.append(trial)
            turn.pace.took(plan, time.monotonic() - began)
        total = max(self.progress.tasks[turn.task].total or 0, len(turn.runs))
        self.progress.update(turn.task, advance=1, total=total)

    async def _take(self, replica: Replica | None) -> None:
        """Say which replica is under trial, so that the routers send nothing there."""
        before = self._under_trial
        if before == replica:
            return
        self._under_trial = replica
        if before is not None:
            await self.store.board.set_trials.remote(before.model, [])
        if replica is not None:
            await self.store.board.set_trials.remote(replica.model, [replica.replica_id])
        await self.router.broadcast("refresh").results_async()


def _surplus(due: Sequence[_Turn], index: int) -> tuple[tuple[str, float], ...]:
    """Trials of a round that not all models had their part in, unless one has no other."""
    waiting = [turn for turn in due if not turn.failed and index not in turn.runs]
    if not all(turn.runs for turn in waiting):
        return ()
    had = [turn for turn in due if index in turn.runs and turn.latest is not None]
    return tuple((t.replica.model, t.latest or 0.0) for t in had) if waiting else ()
