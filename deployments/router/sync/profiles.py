"""Where the router's profiles come from: a prior that ships, overlaid with what the store holds."""

from __future__ import annotations

import asyncio
import logging
from importlib.resources import files
from pathlib import Path

from cluster.store.actor import STORE_TIMEOUT_S, Snapshot, connect_store
from cluster.store.decisions import RecordStatus
from scheduler.costs.profiles import ProfileSet
from scheduler.errors import ProfileError

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
        self.record = RecordStatus()
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
        """What is wrong with profiles and store at this moment, for /health."""
        record = self.record.fault and f"record of decisions: {self.record.fault}"
        return [fault for fault in (self._fault, self._store_fault, record) if fault]

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
        version, trials, self._store_fault, self.record = await self.store.version.remote()
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

    def _combine(self) -> None:
        self.current = self._prior.merged(self._published) if self._published else self._prior
