"""Where the router's profiles come from: a prior that ships, overlaid with what the store holds."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from cluster.store.actor import Store, connect_store
from cluster.store.archive.archive import ArchiveState, Snapshot
from cluster.store.archive.decisions import RecordStatus
from deployments.router.sync.card_profiles import profile_of
from deployments.router.sync.exchange import Exchange, Standing, exchange
from scheduler.costs.priors.library import LIBRARY, shipped_library
from scheduler.costs.priors.origins import MEASURED
from scheduler.costs.priors.origins import SHIPPED as SHIPPED_ORIGIN
from scheduler.costs.profiles import ProfileSet
from scheduler.errors import ProfileError

logger = logging.getLogger("ray.serve")

SHIPPED = {
    "seed": ("scheduler", "data/default_profiles.json"),
    "embedded": ("deployments", "data/embedded_profiles.json"),
}


class ProfileSource(Exchange[None]):
    """The profiles in use; a store that is unavailable or holds nonsense changes nothing.

    Args:
        data_dir: Folder of the store, made by whichever router comes first.
    """

    period_s = 5.0
    topic = "profiles"

    def __init__(self, data_dir: str) -> None:
        self.store = connect_store(data_dir)
        self.current = ProfileSet(())
        self.trials: dict[str, tuple[str, ...]] = {}
        self.record = RecordStatus()
        self._data_dir = data_dir
        self._prior = ProfileSet(())
        self._published: ProfileSet | None = None
        self._library: ProfileSet | None = None
        self._descriptions: dict[str, Mapping[str, Any]] = {}
        self._store_fault: str | None = None
        self._fault: str | None = None
        self._warned: set[str] = set()

    def set_prior(self, name: str | None) -> None:
        """Choose the profiles that stand until better ones are published.

        Raises:
            ValueError: The file is missing or unreadable; the previous prior stays.
        """
        library = None
        if name is None or name == LIBRARY:
            self._prior = ProfileSet(())
            library = shipped_library() if name else None
        else:
            source = files(SHIPPED[name][0]) / SHIPPED[name][1] if name in SHIPPED else Path(name)
            try:
                self._prior = ProfileSet.from_json(source.read_text())
            except (OSError, UnicodeDecodeError, ProfileError) as error:
                raise ValueError(f"prior_profiles: {name}: {error}") from error
        self._library = library
        self._combine()

    def faults(self) -> list[str]:
        """What is wrong with profiles and store at this moment, for /health."""
        record = self.record.fault and f"record of decisions: {self.record.fault}"
        return [fault for fault in (self._fault, self._store_fault, record) if fault]

    def origin(self, model: str) -> str | None:
        """Where a model's profile comes from, see `ModelProfile.origin`; `None` without one."""
        profile = self.current.find(model)
        return (profile.origin or MEASURED) if profile else None

    def hear_descriptions(self, descriptions: Mapping[str, Mapping[str, Any]]) -> None:
        """Take in what replicas say of themselves: it gives profiles to models that have none.

        Args:
            descriptions: As `ModelServer.describe` returns them, by model.
        """
        if descriptions != self._descriptions:
            self._descriptions = dict(descriptions)
            self._combine()

    async def refresh(self) -> None:
        """Look at the store; fetch the profiles if they changed, give them back if it lost them.

        Raises:
            Exception: Whatever is wrong with the store; it stands in `faults` until it is not.
        """
        try:
            await exchange(self, self.store)
        except Exception as error:
            cause = str(error).strip().splitlines()
            self._fault = f"store: {type(error).__name__}: {cause[-1] if cause else 'no answer'}"
            # Off the loop: it waits for Ray.
            self.store = await asyncio.to_thread(connect_store, self._data_dir)
            raise
        self._fault = None

    def hear(self, topics: Mapping[str, Any]) -> None:
        """Take in what the board's news says of trials and of the archive."""
        self.trials = {model: tuple(replicas) for model, replicas in topics["trials"].items()}
        if "record" in topics:
            self._store_fault, self.record = topics["fault"], RecordStatus(*topics["record"])

    def is_stale(self, topics: Mapping[str, Any]) -> bool:
        """Whether the store must be asked, by the board's news."""
        return self._fault is not None or self.is_news(topics.get("profiles"))

    def is_news(self, version: str | None) -> bool:
        """Whether the store has other profiles."""
        return version != (self._published.version if self._published else None)

    async def hand_over(self, store: Store, batch: None) -> Standing:
        """Ask which profiles the store has, and which replicas are under trial."""
        self.trials = dict(await store.board.trials.remote())
        state: ArchiveState = await store.archive.versions.remote()
        version, self._store_fault, self.record = state.profiles, state.fault, state.record
        if version is None and self._published is not None:
            return Standing.AHEAD
        return Standing.BEHIND if self.is_news(version) else Standing.LEVEL

    async def fetch(self, store: Store) -> None:
        """Take the store's profiles."""
        snapshot: Snapshot = await store.archive.snapshot.remote()
        if snapshot.profiles is not None:
            self._published = ProfileSet.from_json(snapshot.profiles)
            self._combine()

    async def restore(self, store: Store) -> None:
        """Give the store this router's profiles."""
        if self._published is not None:
            await store.archive.publish.remote(self._published.to_json())

    def warn_unprofiled(self, model: str) -> None:
        """Say once in the log that a model has no profile."""
        if model not in self._warned:
            self._warned.add(model)
            logger.warning("%s has no profile: it can only be asked for by name", model)

    def _combine(self) -> None:
        current = _named(self._prior, SHIPPED_ORIGIN)
        if self._published:
            current = current.merged(self._published)
        others = (
            profile_of(model, description, self._library)
            for model, description in self._descriptions.items()
            if current.find(model) is None
        )
        found = tuple(profile for profile in others if profile is not None)
        self.current = replace(current, profiles=current.profiles + found)


def _named(profiles: ProfileSet, origin: str) -> ProfileSet:
    """The set with this origin in every profile, whatever the file says of where it was made."""
    named = tuple(replace(profile, origin=origin) for profile in profiles.profiles)
    return replace(profiles, profiles=named)
