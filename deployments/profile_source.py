"""Where the router's profiles come from: a prior that ships, overlaid with what the store holds."""

from __future__ import annotations

import asyncio
import logging
from importlib.resources import files
from pathlib import Path
from typing import Any

from ray.exceptions import RayError

from cluster.store import STORE_TIMEOUT_S, Snapshot, connect_store
from scheduler.errors import ProfileError
from scheduler.profiles import ProfileSet

logger = logging.getLogger("ray.serve")

SHIPPED = {
    "seed": ("scheduler", "data/default_profiles.json"),
    "embedded": ("deployments", "data/embedded_profiles.json"),
}


class ProfileSource:
    """The profiles in use; a store that is away or holds nonsense changes nothing.

    Args:
        data_dir: Folder of the store, made by whichever router comes first.
    """

    def __init__(self, data_dir: str) -> None:
        self.store = connect_store(data_dir)
        self.current = ProfileSet(())
        self.trials: dict[str, tuple[str, ...]] = {}
        self._data_dir = data_dir
        self._prior = ProfileSet(())
        self._published: ProfileSet | None = None
        self._store_fault: str | None = None
        self._fault: str | None = None
        self._warned: set[str] = set()

    def set_prior(self, name: str | None) -> None:
        """Choose the profiles that stand until better ones are published.

        Raises:
            ValueError: The file is missing or unreadable; the prior of before stays.
        """
        if name is None:
            self._prior = ProfileSet(())
        else:
            source = files(SHIPPED[name][0]) / SHIPPED[name][1] if name in SHIPPED else Path(name)
            try:
                self._prior = ProfileSet.from_json(source.read_text())
            except (OSError, UnicodeDecodeError, ProfileError) as error:
                raise ValueError(f"prior_profiles: {name}: {error}") from error
        self._combine()

    def faults(self) -> list[str]:
        """What is wrong with the profiles at this moment, for /health."""
        return [fault for fault in (self._fault, self._store_fault) if fault]

    def origin(self, model: str) -> str | None:
        """Where a model's profile comes from: `measured` here, the `prior`, or nowhere."""
        if self._published is not None and self._published.find(model):
            return "measured"
        return "prior" if self._prior.find(model) else None

    async def refresh(self) -> None:
        """Look at the store; fetch the profiles if they changed, give them back if it lost them.

        Raises:
            Exception: Whatever is wrong with the store; it stands in `faults` until it is not.
        """
        try:
            async with asyncio.timeout(STORE_TIMEOUT_S):
                await self._fetch()
        except Exception as error:
            cause = str(error).strip().splitlines()
            self._fault = f"store: {type(error).__name__}: {cause[-1] if cause else 'no answer'}"
            # Off the loop: it waits for Ray.
            self.store = await asyncio.to_thread(connect_store, self._data_dir)
            raise
        self._fault = None

    async def _fetch(self) -> None:
        version, trials, self._store_fault = await self.store.version.remote()
        self.trials = dict(trials)
        if version is None and self._published is not None:
            await self.store.publish.remote(self._published.to_json())
        elif version != (self._published.version if self._published else None):
            snapshot: Snapshot = await self.store.snapshot.remote()
            if snapshot.profiles is not None:
                self._published = ProfileSet.from_json(snapshot.profiles)
                self._combine()

    def warn_unprofiled(self, model: str) -> None:
        """Say once in the log that a model has no profile."""
        if model not in self._warned:
            self._warned.add(model)
            logger.warning("%s has no profile: it can only be asked for by name", model)

    async def decisions(self, limit: int, own: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The latest decisions of all routers, newest first.

        Args:
            limit: At most so many.
            own: Those of this router, which the store may not have yet, newest first.
        """
        try:
            async with asyncio.timeout(STORE_TIMEOUT_S):
                stored: list[dict[str, Any]] = await self.store.decisions.remote(limit)
        except (RayError, TimeoutError):
            stored = []
        merged = {record["decision_id"]: record for record in (*stored, *own)}
        return sorted(merged.values(), key=lambda r: r["finished_at"], reverse=True)[:limit]

    async def decision(self, decision_id: str, own: list[dict[str, Any]]) -> dict[str, Any] | None:
        """One decision of any router, `None` where nobody remembers it."""
        for record in own:
            if record["decision_id"] == decision_id:
                return record
        try:
            async with asyncio.timeout(STORE_TIMEOUT_S):
                found: dict[str, Any] | None = await self.store.decision.remote(decision_id)
        except (RayError, TimeoutError):
            return None
        return found

    def _combine(self) -> None:
        self.current = self._prior.merged(self._published) if self._published else self._prior
