"""A request until it is answered: when a replica or a model breaks, it is resumed on another one.

Before the first byte it starts again. In the middle of a stream the client must not notice: on
another replica of the same model it goes on by token ids, exactly; on the next-best model by text.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from deployments.links.frames import Endpoint, Flag, Frame, ModelRequest
from deployments.router.access.budgets import Progress
from deployments.router.blame.suspects import Finding, Suspicion
from deployments.router.delivery.attempts import Attempt
from deployments.router.delivery.continuation import (
    follows_grammar_behind_reasoning,
    is_exact,
    obstacle,
    prompt_tokens,
    usage_chunk,
)
from deployments.router.delivery.dispatch import (
    Dispatch,
    ModelBrokeError,
    ModelFullError,
    ModelRefusedError,
)
from deployments.router.delivery.handover import Handover, capabilities_of
from deployments.router.delivery.stream import Passage, Stream
from deployments.router.models import ModelDirectory
from deployments.router.tracing import RequestTrace
from deployments.router.wire.api_error import ApiError
from deployments.router.wire.error_codes import ErrorCode
from deployments.router.wire.no_candidate import whole_seconds
from deployments.router.wire.openai import ParsedRequest
from scheduler.costs.observations import Observation
from scheduler.types import Decision

logger = logging.getLogger("ray.serve")

TRIED_ELSEWHERE = frozenset({ErrorCode.REJECTED_BY_ENGINE, ErrorCode.UNSUPPORTED})
"""Codes of rejections that say something of one engine."""


@dataclass(slots=True)
class Delivery:
    """One request of a client.

    Attributes:
        origin: Which router this is.
        max_attempts: So many tries may break; with the last of them the request does. Who refuses
            is not counted.
        key: Name of the API key that asks, `None` without one.
        trace: Its spans, `None` where tracing is off.
        suspicion: The request as far as blame goes; made from the body where it is `None`.
        attempts: The tries so far; the last one answers.
        observation: What the last one took, `None` until it is known; its tokens are those of the
            whole answer.
        rejected_by: Models whose engines rejected the request before another one was asked, with
            what they said.
        generated_tokens: By all tries together, as far as the router sees them: 0 for an answer
            that comes as a whole.
    """

    decision: Decision
    parsed: ParsedRequest
    endpoint: Endpoint
    body: bytes
    directory: ModelDirectory
    origin: str
    max_attempts: int
    key: str | None = None
    trace: RequestTrace | None = None
    suspicion: Suspicion | None = None
    attempts: list[Attempt] = field(default_factory=list, init=False)
    observation: Observation | None = field(default=None, init=False)
    rejected_by: dict[str, ApiError] = field(default_factory=dict, init=False)
    # What the present model was asked.
    _asked: bytes = field(default=b"", init=False)
    _stream: Stream = field(init=False)
    generated_tokens: int = field(default=0, init=False)
    _dispatch: Dispatch | None = field(default=None, init=False)
    _tried: set[str] = field(default_factory=set, init=False)
    _began: float = field(default_factory=time.monotonic, init=False)
    # The mean log probability of the answer is wanted.
    _scored: bool = field(default=False, init=False)
    # The break for which it is resumed elsewhere, and who said there that the request is wrong.
    _broke: ModelBrokeError | None = field(default=None, init=False)
    _refusals: list[str] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self._stream = Stream(self.endpoint, self.parsed.choices == 1)

    @property
    def model(self) -> str:
        """Who answers, as far as is known."""
        return self.attempts[-1].model if self.attempts else self.decision.model

    @property
    def rejected(self) -> list[Observation]:
        """What answers took that the client did not get."""
        return [attempt.rejected for attempt in self.attempts if attempt.rejected]

    @property
    def progress(self) -> Progress:
        """What is known of the answer without its replica's word."""
        return Progress(
            self.generated_tokens if self.parsed.stream else None,
            time.monotonic() - self._began,
            math.fsum(seen.energy_joules or 0.0 for seen in self.rejected),
        )

    @property
    def settles_late(self) -> bool:
        """The answer was cancelled, and its replica has yet to say what it took."""
        return self.observation is None and self._dispatch is not None and self._dispatch.cancelled

    async def settle(self) -> None:
        """Get to know what an answer took that was cancelled; its replica says so soon."""
        if self.observation is None and self._dispatch and await self._dispatch.stopped():
            self._finish(self._dispatch)

    async def answer(self) -> bytes:
        """A whole answer as JSON.

        Raises:
            ApiError: No model gives one.
        """
        return await self._answered_by(self.decision.model)

    async def _answered_by(self, model: str) -> bytes:
        dispatch = self._begin(Attempt(model), self.body)
        while True:
            try:
                data = await dispatch.answer()
            except (ModelBrokeError, ModelRefusedError) as error:
                dispatch = self._again(dispatch, error)
            else:
                self._finish(dispatch)
                return data

    def frames(self) -> AsyncGenerator[Frame]:
        """A streamed answer, as one stream wherever it comes from.

        Raises:
            ApiError: No model continues it.
        """
        return self._streamed_by(self.decision.model)

    async def _streamed_by(self, model: str) -> AsyncGenerator[Frame]:
        dispatch = self._begin(Attempt(model), self.body)
        while True:
            finished = False
            try:
                async with aclosing(self._one_try(dispatch)) as frames:
                    async for frame in frames:
                        finished = finished or bool(frame[2] & Flag.FINISH)
                        yield frame
                return
            except (ModelBrokeError, ModelRefusedError) as error:
                if finished:
                    # The answer is whole; only what goes around it is missing.
                    break
                dispatch = self._again(dispatch, error)
        seen = self.observation
        if self.parsed.include_usage and seen and self._stream.chunks:
            chunk = usage_chunk(self._stream.chunks[-1], seen.input_tokens, seen.output_tokens)
            yield chunk, (), int(Flag.USAGE)
        yield b"data: [DONE]\n\n", (), int(Flag.DONE)

    async def _one_try(self, dispatch: Dispatch) -> AsyncGenerator[Frame]:
        passage = Passage(self._stream, self._counted)
        async with aclosing(dispatch.frames()) as frames:
            async for frame in frames:
                _, ids, flags = frame
                if flags & Flag.ACCEPTED:
                    yield frame
                    continue
                if flags & Flag.FINISH:
                    self._finish(dispatch)
                chunk = passage.take(frame)
                if chunk is not None:
                    self.generated_tokens += len(ids)
                    yield chunk, ids, flags

    def _begin(self, attempt: Attempt, body: bytes, resumed_ids: tuple[int, ...] = ()) -> Dispatch:
        self.attempts.append(attempt)
        self._asked = body
        entry = self.directory[attempt.model]
        trace = self.trace
        admitted = any(not earlier.refused for earlier in self.attempts[:-1])
        request = ModelRequest(
            self.endpoint,
            body,
            self.decision.decision_id,
            self.origin,
            resumed_ids,
            self.parsed.priority,
            waited_s=time.monotonic() - self._began if admitted else 0.0,
            scored=self._scored,
            trace_headers=trace.attempt(attempt.model, attempt.begins) if trace else None,
            sequences=self.parsed.choices,
            caller=self.key or "",
            announced=self.parsed.stream,
        )
        avoid = {*entry.avoid, *self._tried}
        prefix = self.decision.cached.get(attempt.model)
        prefer = prefix.replica_id if prefix else None
        self.suspicion = self.suspicion or Suspicion(self.body, self.key)
        links, blame = self.directory.links, self.directory.blame
        self._dispatch = Dispatch(entry, request, links, avoid, prefer, self.suspicion, blame)
        return self._dispatch

    def _finish(self, dispatch: Dispatch) -> None:
        self.attempts[-1].replica_id = dispatch.replica_id
        seen = dispatch.observation
        if seen and self._stream.in_prompt:
            seen = replace(
                seen,
                input_tokens=prompt_tokens(
                    seen.input_tokens, self._stream.in_prompt, self._counted
                ),
                output_tokens=seen.output_tokens + self._stream.in_prompt,
            )
        self.observation = seen

    @property
    def _counted(self) -> int | None:
        """Input tokens as the first model's tokenizer counts them, `None` where nothing does."""
        first = self.attempts[0].model
        found = (c.prediction for c in self.decision.candidates if c.model == first)
        prediction = next(found, None)
        exact = prediction is not None and prediction.input_tokens_exact
        return prediction.input_tokens if prediction and exact else None

    def _again(self, dispatch: Dispatch, error: ModelBrokeError | ModelRefusedError) -> Dispatch:
        """The next try.

        Raises:
            ApiError: There is none; why this one broke, or why its stream cannot go on.
        """
        broken = self.attempts[-1]
        broken.replica_id, broken.error = dispatch.replica_id, str(error)
        broken.output_tokens = self._stream.generated
        if isinstance(error, ModelRefusedError):
            # Its sender pays for what was generated before the engine ended it.
            self._finish(dispatch)
            return self._after_refusal(broken, error)
        broken.refused = error.refused
        if self.trace:
            self.trace.broke(error)
        if isinstance(error, ModelFullError):
            error.retry_after_s = whole_seconds(self._predicted_wait_s())
        else:
            logger.warning("request %s: %s", self.decision.decision_id, error)
        if not error.refused:
            self._broke = error
        if dispatch.replica_id is not None:
            self._tried.add(dispatch.replica_id)
        suspicion = dispatch.suspicion
        if error.finding is Finding.GUILTY:
            raise self._verdict() or error
        if suspicion and suspicion.breaks > 1:
            # On one other replica or model at most, whatever `max_attempts` says.
            raise self._last_words(error)
        broke = sum(bool(one.error) and not one.refused for one in self.attempts)
        if broke >= self.max_attempts:
            raise self._last_words(error)
        payload: dict[str, Any] = orjson.loads(self.body)
        self._look_at_what_is_out(payload, error)
        # The only suspect of a death is tried where another replica of the model is left if it
        # kills this one too.
        spare = 1 if error.finding is Finding.CULPRIT else 0
        resumable = not self._stream.ids or not follows_grammar_behind_reasoning(
            payload, capabilities_of(self.directory, broken.model)
        )
        if resumable and self.directory.links.usable(broken.model, self._tried) > spare:
            return self._on_another_replica(broken, payload)
        return self._on_another_model(payload, error, spare)

    def _look_at_what_is_out(self, payload: dict[str, Any], error: ModelBrokeError) -> None:
        """Whether the answer can go on behind what the client has got of it.

        Raises:
            ApiError: It cannot.
        """
        if self._stream.begun and self._stream.said.nothing and self.parsed.choices == 1:
            # An opening at most, which every stream has.
            self._stream.ids = []
        elif self._stream.begun:
            reason = "there are several choices" if self.parsed.choices != 1 else None
            reason = reason or obstacle(payload, self.endpoint)
            if reason:
                raise self._stuck(error, reason) from error

    def _after_refusal(self, refused: Attempt, error: ModelRefusedError) -> Dispatch:
        """What another model says of a request is no answer to a break of the one before."""
        refused.refused = True
        if self._broke is None:
            return self._after_rejection(refused, error)
        self._refusals.append(f"model {refused.model!r} answered {error.status}: {error}")
        if self.suspicion and self.suspicion.breaks:
            raise self._last_words(self._broke) from error
        return self._on_another_model(orjson.loads(self.body), self._broke)

    def _after_rejection(self, rejecting: Attempt, error: ModelRefusedError) -> Dispatch:
        """The next model of the decision may take what an engine rejects; it is asked once.

        Raises:
            ApiError: What the first engine said, where no model is left or the next one rejects the
                request too.
        """
        if self.rejected_by:
            raise next(iter(self.rejected_by.values()))
        if error.code not in TRIED_ELSEWHERE or self._stream.begun:
            raise error
        model = self._handover(orjson.loads(self.body)).model()
        if model is None:
            raise error
        self.rejected_by[rejecting.model] = error
        return self._begin(Attempt(model), self.body)

    def _last_words(self, error: ModelBrokeError) -> ApiError:
        """The break that no model mends, with what those said that were asked after it."""
        error = error if error.finding is not Finding.INNOCENT else self._broke or error
        if not self._refusals:
            return error
        message = f"{error}; it is not resumed on another replica: {'; '.join(self._refusals)}"
        code = "stream_broken" if self._stream.chunks else error.code
        return ApiError(503, message, code=code, retry_after_s=error.retry_after_s or 5)

    def _verdict(self) -> ApiError | None:
        """How the next request of its kind will be answered, `None` where that is tried again."""
        book = self.directory.blame.book
        return book.verdict(self.suspicion.fingerprint) if self.suspicion else None

    def _predicted_wait_s(self) -> float | None:
        candidates = self.decision.candidates
        return candidates[0].prediction.wait_s if candidates else None

    def _on_another_replica(self, broken: Attempt, payload: dict[str, Any]) -> Dispatch:
        if not self._stream.ids:
            return self._begin(Attempt(broken.model, broken.begins, broken.exact), self._asked)
        exact = broken.exact and is_exact(payload)
        attempt = Attempt(broken.model, "by token ids", exact)
        return self._begin(attempt, self._asked, tuple(self._stream.ids))

    def _on_another_model(
        self, payload: dict[str, Any], error: ModelBrokeError, spare: int = 0
    ) -> Dispatch:
        handover = self._handover(payload)
        model = handover.model(spare)
        if model is None:
            if reason := handover.why_none():
                raise self._stuck(error, reason) from error
            verdict = self._verdict() if spare else None
            raise verdict or self._last_words(error)
        attempt, body = handover.request(model)
        in_prompt = handover.generated if handover.behind else 0
        self._stream.hand_over(in_prompt, reopened=bool(handover.said.calls))
        return self._begin(attempt, body)

    def _handover(self, payload: dict[str, Any]) -> Handover:
        return Handover(
            self.directory,
            self.decision,
            self.parsed,
            self.endpoint,
            payload,
            self._stream.said,
            self._stream.generated,
            frozenset(attempt.model for attempt in self.attempts),
        )

    def _stuck(self, error: ModelBrokeError, reason: str) -> ApiError:
        message = f"{error}; it cannot be resumed on another replica: {reason}"
        return ApiError(503, message, code=ErrorCode.STREAM_BROKEN)
