"""The store actor and the router, faked around a real store."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from cluster.store.archive.archive import Archive
from cluster.store.board import Board
from scheduler.costs.profiles import ProfileSet


class Cluster:
    """The store and the router, as far as profiling calls them; all that is published is in use."""

    def __init__(self, folder: Path, in_use: ProfileSet) -> None:
        self.folder = folder
        self._board, self._archive = Board(str(folder)), Archive(str(folder), look=dict)
        self._archive.publish(in_use.to_json())
        self.board, self.archive = _handle(self._board), _handle(self._archive)

    @property
    def in_use(self) -> ProfileSet:
        text = self._archive.snapshot().profiles
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


def _handle(state: Any) -> Any:
    class Handle:
        def __getattr__(self, method: str) -> Any:
            async def remote(*args: Any) -> Any:
                return getattr(state, method)(*args)

            return SimpleNamespace(remote=remote)

    return Handle()
