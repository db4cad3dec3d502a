"""A request of the policy `sequential`: ask, look at the answer, ask again or give the best one.

An answer after which another model may be asked is held back whole, streams included. An answer
after which nothing else would be asked, whatever it is, goes out as it comes. Where seconds count
more than joules, two models on different devices are asked at once. All answers that are held back
count in `routing.actual` and in budgets; the client gets the one that is most likely right.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

import orjson

from deployments.links.frames import Flag, Frame
from deployments.router.delivery.attempts import Attempt, StepJudgement
from deployments.router.delivery.dispatch import Dispatch, ModelBrokeError, ModelRefusedError
from deployments.router.delivery.failover import Delivery
from deployments.router.delivery.said import Said
from deployments.router.wire.api_error import ApiError
from scheduler.costs.observations import Observation
from scheduler.sequential.answers import comparable
from scheduler.sequential.steps import Plan, SeenAnswer, Step

SHOWN_CHARS = 80


class _Whole(NamedTuple):
    """An answer as it came: JSON, or the frames of a stream."""

    data: bytes
    frames: list[Frame]


class _Held(NamedTuple):
    """An answer that the client has not got."""

    attempt: Attempt
    observation: Observation | None
    seen: SeenAnswer
    data: bytes
    frames: list[Frame]


@dataclass(slots=True)
class Sequential(Delivery):
    """One request of a client, whose decision has a plan."""

    _held: list[_Held] = field(default_factory=list, init=False)
    _frames: list[Frame] = field(default_factory=list, init=False)
    # The request to a second model that is asked at the same time.
    _second: Delivery | None = field(default=None, init=False)
    _plan: Plan | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        # Slots take `super()` away from a dataclass.
        Delivery.__post_init__(self)
        self._plan = self.decision.report(Plan)

    async def answer(self) -> bytes:
        """A whole answer as JSON.

        Raises:
            ApiError: No model gives one.
        """
        step = self._first()
        while step.ask is not None:
            self._scored = step.also is not None or self._is_looked_at(step.ask)
            async with self._asking_second(step) as second:
                try:
                    data = await self._answered_by(step.ask)
                except ApiError as error:
                    step = await self._without(step.ask, second, error)
                    break
                if not self._scored:
                    return data
                self._hold(self, data, [])
                await self._hold_second(second)
            step = self._looked()
        return self._given(step).data

    async def frames(self) -> AsyncGenerator[Frame]:
        """A streamed answer, all of it by one model where nothing breaks.

        Raises:
            ApiError: As `answer`.
        """
        step = self._first()
        while step.ask is not None:
            self._scored = step.also is not None or self._is_looked_at(step.ask)
            begun = False
            async with self._asking_second(step) as second:
                try:
                    async with aclosing(self._streamed_by(step.ask)) as frames:
                        async for frame in frames:
                            if frame[2] & Flag.ACCEPTED:
                                # Another model may answer yet; headers name the one that does.
                                continue
                            if self._scored:
                                self._frames.append(frame)
                            else:
                                begun = True
                                yield frame
                except ApiError as error:
                    if begun:
                        raise
                    step = await self._without(step.ask, second, error)
                    break
                if not self._scored:
                    return
                self._hold(self, b"", list(self._frames))
                await self._hold_second(second)
            step = self._looked()
        for frame in self._given(step).frames:
            yield frame

    @property
    def settles_late(self) -> bool:
        """As of any delivery, and of the second model's."""
        # Slots take `super()` away from a dataclass.
        own = bool(Delivery.settles_late.__get__(self, Sequential))
        return own or (self._second is not None and self._second.settles_late)

    async def settle(self) -> None:
        """Get to know what answers took that were cancelled."""
        await Delivery.settle(self)
        if self._second is not None:
            await self._second.settle()
            self._reject(self._second)

    def _first(self) -> Step:
        """The step that the decision is."""
        plan, model = self._plan, self.decision.model
        if plan is not None and plan.first.ask == model and self.parsed.choices == 1:
            return plan.first
        return Step(ask=model, give="", chance_right=0.0, worth={}, chances={})

    @asynccontextmanager
    async def _asking_second(self, step: Step) -> AsyncGenerator[asyncio.Task[_Whole] | None]:
        """Ask the second model of a step, if it has one, until the step ends."""
        if step.also is None:
            yield None
            return
        # It stays on its model: others are for the steps that follow.
        alone = tuple(c for c in self.decision.candidates if c.model == step.also)
        self._second = Delivery(
            replace(self.decision, model=step.also, candidates=alone),
            self.parsed,
            self.endpoint,
            self.body,
            self.directory,
            self.origin,
            self.max_attempts,
            self.key,
            suspicion=self.suspicion,
        )
        self._second._scored = True
        task = asyncio.create_task(_whole(self._second))
        try:
            yield task
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait([task])

    async def _hold_second(self, task: asyncio.Task[_Whole] | None) -> None:
        """Wait for the answer of the second model; where it breaks there is one answer less."""
        second = self._second
        if task is None or second is None:
            return
        await asyncio.wait([task])
        error = task.exception()
        if error is not None and not isinstance(error, ApiError):
            raise error
        if error is not None or second.model in {held.seen.model for held in self._held}:
            # A failover of the first model may have asked this one too.
            self._reject(second)
            return
        self._second = None
        self._hold(second, *task.result())
        self.attempts += second.attempts

    def _reject(self, second: Delivery) -> None:
        """Have an answer counted that the client does not get."""
        self._second = None
        if second.attempts and second.observation is not None:
            judged = StepJudgement(False, second.observation, None, (), self._step())
            second.attempts[-1].judged = judged
        self.attempts[:0] = second.attempts

    def _is_looked_at(self, model: str) -> bool:
        plan = self._plan
        # Several answers to one request have no one answer that could be compared.
        if plan is None or self.parsed.choices != 1 or model not in plan.models:
            return False
        able = self._able(model)
        return bool(self._held) or plan.may_go_on(self._seen(), model, able)

    def _able(self, *besides: str) -> list[str]:
        plan = self._plan
        tried = {*besides, *(attempt.model for attempt in self.attempts)}
        return [
            name
            for name in (plan.models if plan else ())
            if name not in tried and self.directory.why_not(name) is None
        ]

    def _seen(self) -> list[SeenAnswer]:
        return [held.seen for held in self._held]

    def _step(self, *besides: str) -> Step:
        assert self._plan is not None
        return self._plan.after(self._seen(), self._able(*besides))

    def _hold(self, delivery: Delivery, data: bytes, frames: list[Frame]) -> None:
        """Keep an answer, and what is seen in it."""
        attempt, observation = delivery.attempts[-1], delivery.observation
        if self.parsed.stream:
            form, empty = _streamed_answer(delivery._stream.said)
        else:
            form, empty = _whole_answer(data)
        seen = SeenAnswer(attempt.model, form, empty)
        if observation is not None:
            seen = replace(
                seen,
                blank=empty or observation.cut,
                output_tokens=observation.output_tokens or None,
                mean_logprob=observation.mean_logprob,
            )
        self._held.append(_Held(attempt, observation, seen, data, frames))
        if delivery is self:
            self._forget()

    def _looked(self) -> Step:
        """What to do now that the answers of a step are there."""
        plan, last = self._plan, self._held[-1]
        step = self._step()
        if last.observation is None or plan is None or last.seen.model not in plan.models:
            # Without a measurement, or from a model that stood in for another, it is the last one.
            step = replace(step, ask=None, also=None, give=last.seen.model)
        self._judge(step)
        return step

    async def _without(
        self, broken: str, second: asyncio.Task[_Whole] | None, error: ApiError
    ) -> Step:
        """Where neither `broken` nor a model behind it answers: give the best answer there is.

        Raises:
            ApiError: There is none.
        """
        self._forget()
        await self._hold_second(second)
        if not self._held:
            raise error
        step = replace(self._step(broken), ask=None, also=None)
        self._judge(step)
        return step

    def _judge(self, step: Step) -> None:
        """Write the step after the answers that it looks at first."""
        for place, held in enumerate(self._held):
            if held.attempt.judged is not None or held.observation is None:
                continue
            form = held.seen.answer
            agrees = tuple(
                other.seen.model
                for other in self._held[:place]
                if form is not None and not held.seen.blank and other.seen.answer == form
            )
            shown = form if form is None or len(form) <= SHOWN_CHARS else f"{form[:SHOWN_CHARS]}..."
            held.attempt.judged = StepJudgement(False, held.observation, shown, agrees, step)
            held.attempt.output_tokens = held.observation.output_tokens

    def _given(self, step: Step) -> _Held:
        """Accept one of the answers that were held back."""
        fitting = (held for held in self._held if held.seen.model == step.give)
        given = next(fitting, self._held[-1])
        attempt, self.observation = given.attempt, given.observation
        judged = attempt.judged
        if isinstance(judged, StepJudgement):
            attempt.judged = replace(judged, accepted=True)
        attempt.output_tokens = None
        # The last one is who answered.
        self.attempts.remove(attempt)
        self.attempts.append(attempt)
        return given

    def _again(self, dispatch: Dispatch, error: ModelBrokeError | ModelRefusedError) -> Dispatch:
        if self._scored:
            # The client has got nothing of it, so the next one begins from nothing.
            self._forget()
        return Delivery._again(self, dispatch, error)

    def _forget(self) -> None:
        self._frames.clear()
        self._stream.forget()
        self.observation = None


async def _whole(delivery: Delivery) -> _Whole:
    if not delivery.parsed.stream:
        return _Whole(await delivery.answer(), [])
    async with aclosing(delivery.frames()) as frames:
        return _Whole(b"", [frame async for frame in frames if not frame[2] & Flag.ACCEPTED])


def _streamed_answer(said: Said) -> tuple[str | None, bool]:
    """The comparable form of a streamed answer, and whether it is empty."""
    if said.calls:
        return _calls([asdict(call) for _, call in sorted(said.calls.items())]), False
    return comparable(said.content), not said.content.strip()


def _whole_answer(data: bytes) -> tuple[str | None, bool]:
    """The comparable form of a whole answer, and whether it is empty."""
    choices = orjson.loads(data).get("choices") or [{}]
    message = choices[0].get("message") or {}
    if calls := message.get("tool_calls"):
        return _calls([call.get("function") or {} for call in calls]), False
    text = message.get("content") or choices[0].get("text") or ""
    return comparable(text), not text.strip()


def _calls(functions: list[dict[str, Any]]) -> str:
    """Tool calls in comparable form: names and arguments, whatever the order of the members."""
    parts = []
    for function in functions:
        try:
            arguments = orjson.loads(function.get("arguments") or "{}")
        except orjson.JSONDecodeError:
            arguments = function.get("arguments")
        parts.append([function.get("name"), arguments])
    return "calls:" + orjson.dumps(parts, option=orjson.OPT_SORT_KEYS).decode()
