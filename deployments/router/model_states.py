"""The states of all models for a decision, each kept until something that it says has changed.

Most models of a large cluster have no request of this router at a given moment, and nothing new is
learnt of them between two decisions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from deployments.router.model_entry import ModelEntry
from deployments.router.sync.shared import SharedState
from scheduler.costs.profiles import ProfileSet
from scheduler.types import ModelState

Build = Callable[[ModelEntry, ProfileSet, SharedState, Mapping[str, int], str], ModelState]
"""Makes the state of an entry from the profiles, the load and what was learnt, this router's own
requests by model, and the name of the key that asks."""

# A model, and whether an API key asks: of those without requests of keys it does not matter which.
_Place = tuple[str, bool]


class ModelStates:
    """Those of one router.

    Args:
        build: See `Build`.
    """

    def __init__(self, build: Build) -> None:
        self._build = build
        self._numbers: tuple[float, ...] = ()
        self._things: tuple[object, object, object] = (None, None, None)
        self._kept: dict[_Place, tuple[tuple[object, ...], ModelState]] = {}
        self._busy: frozenset[str] = frozenset()

    def of(
        self,
        entries: Iterable[ModelEntry],
        profiles: ProfileSet,
        shared: SharedState,
        caller: str,
        why_not: Callable[[str], str | None] | None = None,
    ) -> tuple[ModelState, ...]:
        """One for each entry, in their order.

        Args:
            entries: All of them.
            profiles: Those in use.
            shared: The load, and what was learnt.
            caller: Name of the API key that asks, empty where there is none.
            why_not: Why no request can go to a model; `None` where that follows from its entry
                alone, and so changes with it.
        """
        entries = list(entries)
        own = {entry.model: ongoing for entry in entries if (ongoing := entry.ongoing)}
        self._forget(profiles, shared, frozenset(own))
        kept, revisions, asked = self._kept, shared.learning.revisions, bool(caller)
        states = []
        for entry in entries:
            model = entry.model
            reason = why_not(model) if why_not is not None else None
            key = (entry.revision, revisions.get(model), reason, *entry.by_priority.values())
            found = kept.get((model, asked))
            # What keys have there differs from caller to caller.
            shareable = not (asked and entry.by_caller)
            if shareable and found is not None and found[0] == key:
                states.append(found[1])
                continue
            state = self._build(entry, profiles, shared, own, caller)
            if shareable:
                kept[model, asked] = key, state
            states.append(state)
        return tuple(states)

    def _forget(self, profiles: ProfileSet, shared: SharedState, busy: frozenset[str]) -> None:
        """Drop what is out of date for many models at once."""
        loads, learning = shared.loads, shared.learning
        numbers = loads.taken_at, loads.fresh, learning.corrections.turns
        # By identity: two profile sets may be equal and are long to compare.
        things = profiles, learning, loads.replicas
        last = self._things
        if numbers != self._numbers or any(a is not b for a, b in zip(things, last, strict=True)):
            self._numbers, self._things, self._busy = numbers, things, busy
            self._kept.clear()
            return
        for model in busy ^ self._busy:
            # It slows down, or no longer, what shares a device with it.
            for neighbour in loads.neighbours(model):
                self._kept.pop((neighbour, False), None)
                self._kept.pop((neighbour, True), None)
        self._busy = busy
