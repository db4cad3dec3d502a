"""What the router knows of the models: which are up, where, and how busy this router keeps them.

Refreshed in the background; a request only reads it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Container, Mapping, Sequence
from typing import Any

from cluster.naming import application_name, model_deployment_name
from cluster.store.load import LoadView
from cluster.store.serving import Application, Applications, look_at_serve
from deployments.links.pool import LinkPool
from deployments.router.blame.judge import Blame
from deployments.router.blame.suspects import handle_place
from deployments.router.model_entry import ModelEntry
from deployments.router.model_states import ModelStates
from deployments.router.sync.shared import SharedState
from scheduler.capabilities import UNKNOWN, Capabilities
from scheduler.costs.grid import NO_GRID, Grid
from scheduler.costs.profiles import ProfileSet
from scheduler.extras import Extras
from scheduler.types import ClusterState, ModelState

logger = logging.getLogger("ray.serve")

Descriptions = Mapping[str, dict[str, dict[str, Any]]]

DESCRIBE_TIMEOUT_S = 10.0
SCALED_TO_ZERO = "scaled to 0 replicas"
COMING = ("NOT_STARTED", "DEPLOYING", "RUNNING")
"""Serve's words for applications whose replicas it starts when it should."""


async def _ask_serve() -> Applications:
    return await asyncio.to_thread(look_at_serve)


class ModelDirectory:
    """All models of the configuration, in its order.

    Attributes:
        links: To their replicas.
        blame: Decides whose fault a break is.
        grid: Where their energy comes from.
        applications: Gives what Serve says of its applications.
    """

    def __init__(self) -> None:
        self.links = LinkPool()
        self.blame = Blame()
        self.grid: Grid = NO_GRID
        self.links.on_loss = self._lost
        self.links.on_sick = self.blame.sick
        self.applications: Callable[[], Awaitable[Applications]] = _ask_serve
        self._descriptions: Descriptions = {}
        self._loads: LoadView | None = None
        self._entries: dict[str, ModelEntry] = {}
        self._states = ModelStates(self._state)

    def configure(self, models: Sequence[str]) -> None:
        """Take exactly these models, keeping what is known of those that stay."""
        self._entries = {m: self._entries.get(m) or ModelEntry(m) for m in models}

    def __contains__(self, model: str) -> bool:
        return model in self._entries

    def __getitem__(self, model: str) -> ModelEntry:
        return self._entries[model]

    def entries(self) -> list[ModelEntry]:
        """Every model."""
        return list(self._entries.values())

    def descriptions(self) -> dict[str, dict[str, Any]]:
        """What the replicas of models that generate say of themselves, as far as one answered."""
        generating = (entry for entry in self._entries.values() if entry.generates)
        return {e.model: e.description for e in generating if e.description is not None}

    def why_not(self, model: str) -> str | None:
        """Why no request can go to a model now, `None` if one can."""
        entry = self._entries[model]
        if entry.unavailable is not None:
            return entry.unavailable
        if entry.all_avoided:
            return "its engine hangs" if entry.hung else "being profiled"
        if self.links.dead(model):
            return "its replicas have died"
        return "its replicas break requests" if self.links.broken(model) else None

    def under_suspicion(self, model: str) -> bool:
        """Whether a request that may break its replica runs on every replica of a model."""
        trials = self.blame.trials()
        if not trials:
            return False
        replicas = self.links.usable(model)
        return self.links.usable(model, trials) == 0 if replicas else handle_place(model) in trials

    def _lost(self, replica_id: str, others: int) -> None:
        self.blame.died(replica_id, "the connection to the replica broke", others)

    def why_none(self, waking: Container[str] = ()) -> str | None:
        """Why no model can answer, `None` where one can.

        Args:
            waking: Models that a request brings back from 0 replicas.
        """
        reasons = {model: self.why_not(model) for model in self._entries}
        if not reasons:
            return "no model is configured yet"
        if any(reason is None or model in waking for model, reason in reasons.items()):
            return None
        return "; ".join(f"{model}: {reason}" for model, reason in reasons.items())

    def set_trials(self, trials: dict[str, tuple[str, ...]]) -> None:
        """Say which replicas are being profiled."""
        for entry in self._entries.values():
            entry.under_trial = trials.get(entry.model, ())

    def take(self, loads: LoadView) -> None:
        """Take in what all replicas said of themselves lately."""
        self._loads = loads
        self.links.update(loads.replicas, loads.router_id)
        for entry in self._entries.values():
            entry.hung = loads.unhealthy(entry.model)
            entry.reporting = loads.reporting(entry.model)

    def ongoing(self) -> dict[str, int]:
        """Requests that this router has, by model; models without one are left out."""
        return {entry.model: entry.ongoing for entry in self._entries.values() if entry.ongoing}

    def cluster_state(
        self, profiles: ProfileSet, shared: SharedState, extras: Extras, caller: str = ""
    ) -> ClusterState:
        """The models for a decision on a request of an API key, if one asks.

        Args:
            profiles: Those in use.
            shared: The load, and what was learnt.
            extras: What single policies look at.
            caller: Name of the API key.
        """
        # While the links are calm, whether a request can go there follows from what an entry says.
        why_not = None if self.links.calm else self.why_not
        return ClusterState(
            models=self._states.of(self._entries.values(), profiles, shared, caller, why_not),
            profile_version=profiles.version,
            reference=profiles.reference,
            extras=extras,
        )

    def _state(
        self,
        entry: ModelEntry,
        profiles: ProfileSet,
        shared: SharedState,
        own: Mapping[str, int],
        caller: str,
    ) -> ModelState:
        return entry.state(profiles, shared, own, self.why_not(entry.model), caller)

    async def refresh(self) -> None:
        """Look which models run, and ask new ones who they are."""
        applications = await self.applications()
        await asyncio.gather(
            *(
                self._refresh_entry(e, applications.get(application_name(e.model)))
                for e in self.entries()
            )
        )

    async def _refresh_entry(self, entry: ModelEntry, application: Application | None) -> None:
        deployments = application.deployments if application else {}
        deployment = deployments.get(model_deployment_name(entry.model))
        # Who reports runs now; Serve's count may be some seconds old.
        reporting = len(self._loads.reporting(entry.model)) if self._loads else 0
        entry.replicas = reporting or (deployment.replicas if deployment else 0)
        entry.message = deployment.message if deployment else ""
        status = application.status if application else ""
        entry.gone = not entry.replicas and status not in COMING
        running = status == "RUNNING"
        if entry.replicas:
            # While an application is deployed, previous replicas may still answer.
            is_other = self._told(entry) not in (None, entry.description)
            if not (entry.settled and running) or is_other:
                await self._describe(entry)
                entry.settled = running and entry.unavailable is None
            return
        entry.settled = False
        linked = self.links.open(entry.model)
        if status == "DEPLOYING" and entry.unavailable is None and linked:
            # A controller that has just started does not count yet what has been running all along.
            entry.replicas = linked
            return
        entry.description, entry.capabilities = None, UNKNOWN
        if application is None:
            entry.unavailable = "not deployed"
        elif running:
            entry.unavailable = SCALED_TO_ZERO
        else:
            said = " ".join(part for part in (application.message, entry.message) if part)
            entry.unavailable = f"{application.status.lower()}: {said}".rstrip(": ")

    def hear(self, descriptions: Descriptions) -> None:
        """Take in what replicas said of themselves, by model and replica."""
        self._descriptions = descriptions

    def _told(self, entry: ModelEntry) -> dict[str, Any] | None:
        """What the replica that came last said of itself, `None` where none did."""
        by_replica = self._descriptions.get(entry.model)
        return next(reversed(by_replica.values())) if by_replica else None

    @staticmethod
    async def _ask(entry: ModelEntry) -> dict[str, Any]:
        handle = entry.handle(stream=False).options(method_name="describe")
        async with asyncio.timeout(DESCRIBE_TIMEOUT_S):
            description: dict[str, Any] = await handle.remote()
        return description

    def _silent(self, entry: ModelEntry) -> bool:
        """Whether replicas of other models report and none of this one does.

        What Serve was seen to run may be seconds old. Where nothing runs any more, a question
        through Serve's handle would wait for a replica, and so start one.
        """
        loads = self._loads
        return bool(loads and loads.fresh and loads.replicas) and not entry.reporting

    async def _describe(self, entry: ModelEntry) -> None:
        told = self._told(entry)
        if told is None and self._silent(entry):
            entry.unavailable = "no replica has reported yet"
            return
        try:
            entry.description = told or await self._ask(entry)
            entry.capabilities = Capabilities.from_dict(entry.description.get("capabilities") or {})
            entry.generates = entry.capabilities.generates
            entry.unavailable = None
        except Exception as error:
            # The replica may die between Serve's word and ours; the next round asks again.
            entry.unavailable = f"does not answer: {type(error).__name__}"
            logger.warning("%s does not describe itself: %s", entry.model, error)
