"""A request of the policy `sequential`: ask, look at the answer, ask again or give the best one.

An answer after which another model may be asked is held back whole, streams included. An answer
after which nothing else would be asked, whatever it is, goes out as it comes. All answers that are
held back count in `routing.actual` and in budgets; the client gets the one that is most likely
right.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import orjson

from deployments.links.frames import Flag, Frame
from deployments.router.delivery.attempts import Attempt, StepJudgement
from deployments.router.delivery.dispatch import Dispatch, ModelBrokeError, ModelRefusedError
from deployments.router.delivery.failover import Delivery
from deployments.router.wire.api_error import ApiError
from scheduler.costs.observations import Observation
from scheduler.sequential.answers import comparable
from scheduler.sequential.steps import SeenAnswer, Step

SHOWN_CHARS = 80


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

    async def answer(self) -> bytes:
        """A whole answer as JSON.

        Raises:
            ApiError: No model gives one.
        """
        model: str | None = self.decision.model
        while model is not None:
            self._scored = self._is_looked_at(model)
            try:
                data = await self._answered_by(model)
            except ApiError:
                if not self._held:
                    raise
                return self._given_without(model).data
            if not self._scored:
                return data
            model = self._next(data, _whole_answer(data))
        return self._given(self._step(())).data

    async def frames(self) -> AsyncGenerator[Frame]:
        """A streamed answer, all of it by one model where nothing breaks.

        Raises:
            ApiError: As `answer`.
        """
        model: str | None = self.decision.model
        while model is not None:
            self._scored = self._is_looked_at(model)
            begun = False
            try:
                async with aclosing(self._streamed_by(model)) as frames:
                    async for frame in frames:
                        if frame[2] & Flag.ACCEPTED:
                            # Another model may answer yet, and the headers name the one that does.
                            continue
                        if self._scored:
                            self._frames.append(frame)
                        else:
                            begun = True
                            yield frame
            except ApiError:
                if begun or not self._held:
                    raise
                for frame in self._given_without(model).frames:
                    yield frame
                return
            if not self._scored:
                return
            model = self._next(b"", self._streamed_answer())
        for frame in self._given(self._step(())).frames:
            yield frame

    def _is_looked_at(self, model: str) -> bool:
        plan = self.decision.plan
        # Several answers to one request have no one answer that could be compared.
        if plan is None or self.parsed.choices != 1 or model not in plan.models:
            return False
        able = self._able({model})
        return bool(self._held) or plan.may_go_on(self._seen(), model, able)

    def _able(self, besides: set[str]) -> list[str]:
        plan = self.decision.plan
        tried = {attempt.model for attempt in self.attempts} | besides
        return [
            name
            for name in (plan.models if plan else ())
            if name not in tried and self.directory.why_not(name) is None
        ]

    def _seen(self) -> list[SeenAnswer]:
        return [held.seen for held in self._held]

    def _step(self, besides: tuple[str, ...]) -> Step:
        assert self.decision.plan is not None
        return self.decision.plan.after(self._seen(), self._able(set(besides)))

    def _next(self, data: bytes, answer: tuple[str | None, bool]) -> str | None:
        """Look at the answer that is there.

        Returns:
            Who is asked next; `None` where one of the answers is given.
        """
        attempt, observation = self.attempts[-1], self.observation
        form, empty = answer
        seen = SeenAnswer(attempt.model, form, empty)
        if observation is not None:
            seen = replace(
                seen,
                blank=empty or observation.cut,
                output_tokens=observation.output_tokens or None,
                mean_logprob=observation.mean_logprob,
            )
        agrees = tuple(
            held.seen.model
            for held in self._held
            if form is not None and not held.seen.blank and held.seen.answer == form
        )
        self._held.append(_Held(attempt, observation, seen, data, list(self._frames)))
        plan = self.decision.plan
        self._forget()
        if observation is None or plan is None or attempt.model not in plan.models:
            # Without a measurement, or from a model that stood in for another, it is the last one.
            return None
        step = self._step(())
        shown = form if form is None or len(form) <= SHOWN_CHARS else f"{form[:SHOWN_CHARS]}..."
        attempt.judged = StepJudgement(False, observation, shown, agrees, step)
        attempt.output_tokens = observation.output_tokens
        return step.ask

    def _given_without(self, broken: str) -> _Held:
        """The best answer that is there; no model after it gives one."""
        return self._given(self._step((broken,)))

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
        # Slots take `super()` away from a dataclass.
        return Delivery._again(self, dispatch, error)

    def _streamed_answer(self) -> tuple[str | None, bool]:
        payload: dict[str, Any] = orjson.loads(self.body)
        if payload.get("tools"):
            return _tool_calls_of(self._stream.chunks)
        text = self._stream.said.content
        return comparable(text), not text.strip()

    def _forget(self) -> None:
        self._frames.clear()
        self._stream.forget()
        self.observation = None


def _whole_answer(data: bytes) -> tuple[str | None, bool]:
    """The comparable form of a whole answer, and whether it is empty."""
    choices = orjson.loads(data).get("choices") or [{}]
    message = choices[0].get("message") or {}
    if calls := message.get("tool_calls"):
        return _calls([call.get("function") or {} for call in calls]), False
    text = message.get("content") or choices[0].get("text") or ""
    return comparable(text), not text.strip()


def _tool_calls_of(chunks: list[bytes]) -> tuple[str | None, bool]:
    """The same of a stream that may be a tool call, whose arguments come in pieces."""
    calls: dict[int, dict[str, str]] = {}
    text = ""
    for chunk in chunks:
        for choice in orjson.loads(chunk[len(b"data: ") :])["choices"]:
            delta = choice.get("delta") or {}
            text += delta.get("content") or ""
            for piece in delta.get("tool_calls") or ():
                call = calls.setdefault(piece.get("index", 0), {"name": "", "arguments": ""})
                for name in call:
                    call[name] += (piece.get("function") or {}).get(name) or ""
    if calls:
        return _calls([calls[index] for index in sorted(calls)]), False
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
