"""Models that Serve's autoscaler took to 0 replicas come back when a request wants them.

Waking belongs to the router: one wake for each model, even if a request that waits for it leaves.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from contextvars import Context

from deployments.links.fairness import Places
from deployments.router.model_entry import ModelEntry
from deployments.router.models import SCALED_TO_ZERO, ModelDirectory
from deployments.router.wire.api_error import ApiError
from scheduler.choice.admission import most_for_one
from scheduler.exclusions import Exclusion, ExclusionKind

POLL_S = 0.05
SEEN_TIMEOUT_S = 30.0
"""The directory looks once a second."""
STALE_FAILURE_S = 15.0
"""A failure that Serve reported before the wake counts as one of this wake after so long."""
FAILED_RETRY_S = 30
FULL_RETRY_S = 10
DEFAULT_MAX_WAITING = 256
MAX_CAUSE = 500
"""Characters of why a start failed."""
FAILED_TO_START = "failed to start"
"""Serve's words for a replica whose start failed, from the first time on."""

_FOR_EVER = frozenset(
    (
        ExclusionKind.NOT_REQUESTED,
        ExclusionKind.CAPABILITY,
        ExclusionKind.CONTEXT_LENGTH,
        ExclusionKind.RULE,
    )
)
"""What no time changes."""

logger = logging.getLogger("ray.serve")


class WakeFailedError(Exception):
    """A model does not start; the message says why."""


class Waker:
    """Holds requests until their model is up.

    Serve starts a replica when something waits at its handle: here the question who it is.

    Args:
        directory: The models.

    Attributes:
        models: Those that may be woken: nothing would ever come of it for others.
        max_waiting: Requests that may wait for each of them; those of one API key leave a quarter
            of the places to others.
    """

    def __init__(self, directory: ModelDirectory) -> None:
        self.models: Collection[str] = ()
        self.max_waiting = DEFAULT_MAX_WAITING
        self._directory = directory
        self._waking: dict[str, asyncio.Task[None]] = {}
        self._waiting: dict[str, Places] = {}
        self._failed_at: dict[str, float] = {}

    async def wake(self, wanted: str, timeout_s: float, caller: str = "") -> bool:
        """Return when the model can answer, at once where it need not be woken.

        Args:
            wanted: A model, which is woken where it sleeps; else (`auto`) the first that can be
                and has not just failed to start, where no model that generates text is up.
            timeout_s: So long is waited.
            caller: Name of the API key that asks, empty where there is none. It leaves a part of
                the places to others.

        Returns:
            Whether one was woken.

        Raises:
            ApiError: 429, too many requests wait for it; 503, it does not start; 504, it does not
                come in time.
        """
        if not self.models:
            return False
        model = self._sleeper(wanted)
        if model is None:
            return False
        waiting = self._waiting.setdefault(model, Places(self.max_waiting))
        waiting.most = self.max_waiting
        if waiting.full(caller):
            count = f"{waiting.most} requests"
            if waiting.total < waiting.most:
                count = f"{most_for_one(waiting.most)} requests of this API key"
            message = f"model {model!r} is starting, and {count} wait for it"
            raise ApiError(429, message, code="waking_full", retry_after_s=FULL_RETRY_S)
        if model not in self._waking:
            # Serve cancels what a request asked of others when its client leaves; an empty
            # context belongs to no request.
            task = asyncio.create_task(self._wake(self._directory[model]), context=Context())
            task.add_done_callback(_seen)
            self._waking[model] = task
        waiting.take(caller)
        try:
            async with asyncio.timeout(timeout_s):
                # Others wait for it too.
                await asyncio.shield(self._waking[model])
        except TimeoutError as error:
            message = f"model {model!r} did not wake within {timeout_s:g} s"
            raise ApiError(504, message, code="timeout") from error
        except WakeFailedError as error:
            message = f"model {model!r} does not start: {error}"
            raise ApiError(
                503, message, code="wake_failed", retry_after_s=FAILED_RETRY_S
            ) from error
        finally:
            waiting.free(caller)
        return True

    def last_resort(self, excluded: Sequence[Exclusion]) -> str | None:
        """A sleeping model that may take a request which none that is up ever can.

        Args:
            excluded: Why no model was a candidate.
        """
        reasons = {e.kind for e in excluded}
        if reasons - _FOR_EVER - {ExclusionKind.UNAVAILABLE}:
            return None
        away = [e.model for e in excluded if e.kind is ExclusionKind.UNAVAILABLE]
        sleeping = [m for m in away if self._sleeps(m) and self._directory[m].generates]
        return min(sleeping, key=self._failed_lately, default=None)

    def _sleeper(self, wanted: str) -> str | None:
        if wanted in self._directory:
            return wanted if self._sleeps(wanted) else None
        generating = [entry for entry in self._directory.entries() if entry.generates]
        if any(entry.unavailable is None for entry in generating):
            return None
        able = {entry.model for entry in generating}
        sleeping = [model for model in self.models if model in able and self._sleeps(model)]
        return min(sleeping, key=self._failed_lately, default=None)

    def _failed_lately(self, model: str) -> bool:
        failed_at = self._failed_at.get(model)
        return failed_at is not None and time.monotonic() - failed_at < FAILED_RETRY_S

    def _sleeps(self, model: str) -> bool:
        # One that is about to be seen still waits, whatever Serve says of it meanwhile.
        if model in self._waking:
            return True
        return model in self.models and self._directory[model].unavailable == SCALED_TO_ZERO

    async def _wake(self, entry: ModelEntry) -> None:
        logger.info("waking %s", entry.model)
        asking = asyncio.ensure_future(self._ask(entry))
        try:
            await self._watch(entry, asking)
        except Exception as error:
            logger.warning("%s does not wake: %s", entry.model, error or type(error).__name__)
            self._failed_at[entry.model] = time.monotonic()
            raise
        finally:
            del self._waking[entry.model]
            asking.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await asking

    async def _ask(self, entry: ModelEntry) -> None:
        """Return when a replica has answered who it is."""
        response = entry.handle(stream=False).options(method_name="describe").remote()
        answered = False
        try:
            await response
            answered = True
        finally:
            if not answered:
                response.cancel()

    async def _watch(self, entry: ModelEntry, asking: asyncio.Future[None]) -> None:
        """Return when the directory has seen the model run.

        Raises:
            WakeFailedError: Serve says that its start failed, or the question broke.
        """
        began = time.monotonic()
        answered_at: float | None = None
        before = entry.message
        while entry.unavailable is not None:
            now = time.monotonic()
            if asking.done() and answered_at is None:
                if asking.cancelled() or asking.exception() is not None:
                    raise WakeFailedError(_cause(str(asking.exception() or "it was cancelled")))
                answered_at = now
            # Not set here: a look at Serve that is under way would set it back.
            if answered_at is not None and now - answered_at > SEEN_TIMEOUT_S:
                raise WakeFailedError("it answers, but Serve does not count its replica")
            stale = entry.message == before and now - began < STALE_FAILURE_S
            if FAILED_TO_START in entry.message and not stale and answered_at is None:
                raise WakeFailedError(_cause(entry.message))
            # Serve may count a replica before it has said who it is: that one is coming.
            if entry.gone and answered_at is None and not stale:
                raise WakeFailedError(_cause(entry.unavailable))
            await asyncio.sleep(POLL_S)


def _seen(task: asyncio.Task[None]) -> None:
    """Why it failed is in the log; all that waited for it may have left."""
    if not task.cancelled():
        task.exception()


def _cause(text: str) -> str:
    """The end of what Serve says, where a traceback names the error."""
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    if not lines:
        return "no cause is known"
    first, last = lines[0], lines[-1]
    cause = first if last == first else f"{first} {last}"
    return cause if len(cause) <= MAX_CAUSE else f"...{cause[-MAX_CAUSE:]}"
