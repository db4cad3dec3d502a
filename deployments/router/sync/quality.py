"""Where the router's estimates per prompt come from: the quality model that the store holds."""

from __future__ import annotations

from cluster.store.actor import Store
from deployments.router.sync.exchange import Exchange, Standing
from scheduler.errors import QualityModelError
from scheduler.prompts.quality import QualityModel


class QualitySource(Exchange[None]):
    """The model in use; a store that is unavailable or holds nonsense changes nothing.

    Attributes:
        current: `None` until one is published.
        fault: What is wrong with the published one, for /health.
    """

    period_s = 5.0
    topic = "quality"

    def __init__(self) -> None:
        self.current: QualityModel | None = None
        self.fault: str | None = None
        self._refused: str | None = None
        self._published: str | None = None

    def is_news(self, version: str | None) -> bool:
        """Whether the store has another model."""
        return version not in (self._version(), self._refused)

    async def hand_over(self, store: Store, batch: None) -> Standing:
        """Ask which model the store has."""
        version: str | None = await store.archive.quality_version.remote()
        if version is None and self.current is not None:
            return Standing.AHEAD
        self._published = version
        return Standing.BEHIND if self.is_news(version) else Standing.LEVEL

    async def fetch(self, store: Store) -> None:
        """Take the store's model."""
        self._take(await store.archive.quality.remote(), self._published)

    async def restore(self, store: Store) -> None:
        """Give the store this router's model."""
        if self.current is not None:
            await store.archive.publish_quality.remote(self.current.to_bytes())

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
