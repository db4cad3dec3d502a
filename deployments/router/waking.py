"""Models that Serve's autoscaler took to 0 replicas come back when a request wants them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection

from deployments.router.models import SCALED_TO_ZERO, ModelDirectory, ModelEntry
from deployments.router.wire.openai import ApiError

POLL_S = 0.05
SEEN_TIMEOUT_S = 30.0
"""The directory looks once a second."""

logger = logging.getLogger("ray.serve")


class Waker:
    """Holds requests until their model is up.

    Serve starts a replica when something waits at its handle: here the question who it is.

    Args:
        directory: The models.

    Attributes:
        models: Those that may be woken: nothing would ever come of it for others.
    """

    def __init__(self, directory: ModelDirectory) -> None:
        self.models: Collection[str] = ()
        self._directory = directory
        self._waking: dict[str, asyncio.Task[None]] = {}

    async def wake(self, wanted: str, timeout_s: float) -> bool:
        """Return when the model can answer, at once where it need not be woken.

        Args:
            wanted: A model, which is woken where it sleeps; else (`auto`) the first that can be,
                where no model is up.
            timeout_s: So long is waited.

        Returns:
            Whether one was woken.

        Raises:
            ApiError: 504, it does not come in time.
        """
        if not self.models:
            return False
        model = self._sleeper(wanted)
        if model is None:
            return False
        if model not in self._waking:
            self._waking[model] = asyncio.create_task(self._wake(self._directory[model]))
        try:
            async with asyncio.timeout(timeout_s):
                # Others may wait for it too.
                await asyncio.shield(self._waking[model])
        except TimeoutError as error:
            message = f"model {model!r} did not wake within {timeout_s:g} s"
            raise ApiError(504, message, code="timeout") from error
        return True

    def _sleeper(self, wanted: str) -> str | None:
        if wanted in self._directory:
            return wanted if self._sleeps(wanted) else None
        if any(entry.unavailable is None for entry in self._directory.entries()):
            return None
        return next((model for model in self.models if self._sleeps(model)), None)

    def _sleeps(self, model: str) -> bool:
        return model in self.models and self._directory[model].unavailable == SCALED_TO_ZERO

    async def _wake(self, entry: ModelEntry) -> None:
        logger.info("waking %s", entry.model)
        try:
            handle = entry.handle(stream=False).options(method_name="describe")
            await handle.remote()
            # Not set here: a look at Serve that is under way would set it back.
            async with asyncio.timeout(SEEN_TIMEOUT_S):
                while entry.unavailable == SCALED_TO_ZERO:  # noqa: ASYNC110
                    await asyncio.sleep(POLL_S)
        except Exception as error:
            # The decision says that it is not there.
            logger.warning("%s does not wake: %s", entry.model, error or type(error).__name__)
        finally:
            del self._waking[entry.model]
