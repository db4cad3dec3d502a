"""Where the router's estimates per prompt come from: the quality model that the store holds."""

from __future__ import annotations

import asyncio

from cluster.store.actor import STORE_TIMEOUT_S, Store
from scheduler.errors import QualityModelError
from scheduler.prompts.quality import QualityModel


class QualitySource:
    """The model in use; a store that is away or holds nonsense changes nothing.

    Attributes:
        current: `None` until one is published.
        fault: What is wrong with the published one, for /health.
    """

    def __init__(self) -> None:
        self.current: QualityModel | None = None
        self.fault: str | None = None
        self._refused: str | None = None

    async def refresh(self, store: Store) -> None:
        """Fetch the model if it changed, give it back if the store lost it.

        Args:
            store: Handles of its actors.

        Raises:
            TimeoutError: The store does not answer.
            RayError: It is away.
        """
        async with asyncio.timeout(STORE_TIMEOUT_S):
            version: str | None = await store.archive.quality_version.remote()
            if version is None and self.current is not None:
                await store.archive.publish_quality.remote(self.current.to_bytes())
            elif version not in (self._version(), self._refused):
                self._take(await store.archive.quality.remote(), version)

    def _version(self) -> str | None:
        return self.current.version if self.current else None

    def _take(self, data: bytes | None, version: str | None) -> None:
        if data is None:
            return
        try:
            self.current, self.fault = QualityModel.from_bytes(data), None
        except QualityModelError as error:
            # A store of a later version of this program; asked again when it has another one.
            self.fault, self._refused = f"quality model: {error}", version
