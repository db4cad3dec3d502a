"""The store actor and the router, faked around a real store."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from cluster.store.actor import Store
from scheduler.costs.profiles import ProfileSet


class Cluster:
    """The store and the router, as far as profiling calls them; all that is published is in use."""

    def __init__(self, folder: Path, in_use: ProfileSet) -> None:
        self.folder = folder
        self.store = Store(str(folder))
        self.store.publish(in_use.to_json())

    def __getattr__(self, method: str) -> Any:
        async def remote(*args: Any) -> Any:
            return str(self.folder) if method == "data_dir" else getattr(self.store, method)(*args)

        return SimpleNamespace(remote=remote)

    @property
    def in_use(self) -> ProfileSet:
        text = self.store.snapshot().profiles
        assert text is not None
        return ProfileSet.from_json(text)

    def options(self, *, method_name: str) -> SimpleNamespace:
        async def remote() -> Any:
            names = [profile.model for profile in self.in_use.profiles]
            return {"profiles": self.in_use.to_json(), "models": names}[method_name]

        return SimpleNamespace(remote=remote)

    def broadcast(self, method: str) -> SimpleNamespace:
        assert method == "refresh"

        async def results() -> list[str]:
            return [self.in_use.version]

        return SimpleNamespace(results_async=results)
