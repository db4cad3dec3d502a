"""A request that climbs a ladder of models until one of them is sure of its answer.

An answer that may be rejected is held back whole, streams included; the client sees nothing of it
unless it is accepted, or none after it can be had. The last model's stream goes out as it comes.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from deployments.links.frames import Flag, Frame
from deployments.router.delivery.attempts import Attempt, Judgement
from deployments.router.delivery.dispatch import Dispatch, ModelBrokeError, ModelRefusedError
from deployments.router.delivery.failover import Delivery
from deployments.router.wire.api_error import ApiError
from scheduler.costs.observations import Observation
from scheduler.policies.cascade import CascadeStep, Ladder


class _Kept(NamedTuple):
    """An answer that was rejected, for want of a better one."""

    attempt: Attempt
    observation: Observation
    frames: list[Frame]


@dataclass(slots=True)
class Cascade(Delivery):
    """One request of a client, whose decision has a ladder."""

    _steps: tuple[CascadeStep, ...] = field(init=False)
    _accept_above: dict[str, float | None] = field(init=False)
    # A stream that may be rejected.
    _held: list[Frame] = field(default_factory=list, init=False)
    _kept: _Kept | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        # Slots take `super()` away from a dataclass.
        Delivery.__post_init__(self)
        ladder = self.decision.report(Ladder)
        self._steps = ladder.steps if ladder else ()
        self._accept_above = {step.model: step.accept_above for step in self._steps}

    async def answer(self) -> bytes:
        """A whole answer as JSON.

        Raises:
            ApiError: No model gives one.
        """
        model: str | None = self.decision.model
        data = b""
        while model is not None:
            self._scored = self._next(model) is not None
            try:
                data = await self._answered_by(model)
            except ApiError:
                if self._kept is None:
                    raise
                self._take_back()
                return data
            model = self._escalation()
        return data

    async def frames(self) -> AsyncGenerator[Frame]:
        """A streamed answer, all of it by one model where nothing breaks.

        Raises:
            ApiError: As `answer`.
        """
        model: str | None = self.decision.model
        while model is not None:
            self._scored = self._next(model) is not None
            begun = False
            try:
                async with aclosing(self._streamed_by(model)) as frames:
                    async for frame in frames:
                        if frame[2] & Flag.ACCEPTED:
                            # Another model may answer yet, and the headers name the one that does.
                            continue
                        if self._scored:
                            self._held.append(frame)
                        else:
                            begun = True
                            yield frame
            except ApiError:
                if begun or self._kept is None:
                    raise
                self._take_back()
                break
            model = self._escalation()
        for frame in self._held:
            yield frame

    def _next(self, model: str) -> str | None:
        """Who is asked if `model` is not sure; `None` where its answer is taken as it is."""
        if self._accept_above.get(model) is None:
            return None
        tried = {model, *(attempt.model for attempt in self.attempts)}
        able = (
            step.model
            for step in self._steps
            if step.model not in tried and self.directory.why_not(step.model) is None
        )
        return next(able, None)

    def _escalation(self) -> str | None:
        """Judge the answer that is there.

        Returns:
            Who is asked next, `None` where it is accepted.
        """
        attempt, seen = self.attempts[-1], self.observation
        threshold, following = self._accept_above.get(attempt.model), self._next(attempt.model)
        if seen is None or threshold is None or following is None:
            return None
        accepted = seen.mean_logprob is not None and seen.mean_logprob >= threshold
        attempt.judged = Judgement(threshold, accepted, seen)
        if accepted:
            return None
        attempt.output_tokens = seen.output_tokens
        self._kept = _Kept(attempt, seen, list(self._held))
        self._forget()
        return following

    def _again(self, dispatch: Dispatch, error: ModelBrokeError | ModelRefusedError) -> Dispatch:
        if self._scored:
            # The client has got nothing of it, so the next one begins from nothing.
            self._forget()
        # Slots take `super()` away from a dataclass.
        return Delivery._again(self, dispatch, error)

    def _take_back(self) -> None:
        """Accept the last answer that was rejected: no model after it gives one."""
        if self._kept is not None:
            attempt, self.observation, self._held = self._kept
            if attempt.judged:
                attempt.judged = replace(attempt.judged, accepted=True)
            attempt.output_tokens = None
            # The last one is who answered.
            self.attempts.remove(attempt)
            self.attempts.append(attempt)

    def _forget(self) -> None:
        """Drop an answer that the client does not get."""
        self._held.clear()
        self._stream.forget()
        self.generated_tokens, self.observation = 0, None
