"""One model of the configuration, as a router knows it at this moment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ray import serve
from ray.serve.handle import DeploymentHandle

from cluster.naming import application_name, model_deployment_name
from deployments.router.sync.shared import SharedState
from scheduler.capabilities import UNKNOWN, Capabilities
from scheduler.costs.load import places, share
from scheduler.costs.profiles import ProfileSet
from scheduler.priority import Priority
from scheduler.types import NO_CORRECTION, ModelState

_UNSET = object()


@dataclass(slots=True)
class ModelEntry:
    """One model of the configuration.

    Attributes:
        replicas: Running replicas.
        description: What a replica says of itself, `None` until one answered.
        unavailable: Why no request can go there, `None` if one can.
        gone: It has no replica, and Serve is not about to start one: it failed, or is not deployed.
        message: What Serve says of the deployment, empty where it says nothing.
        capabilities: What it says of what its engine takes; nothing while it has said nothing.
        generates: As far as a replica ever said, it generates text; a pooling engine does not.
        settled: `description` is of the version that is deployed.
        under_trial: Replicas that are being profiled.
        hung: Replicas whose engine gives no sign of life.
        reporting: Replicas that have said something of themselves lately, these among them.
        by_priority: Requests that this router has there, by their priority.
        by_caller: Those of API keys, by the key's name and their priority.
        revision: Rises whenever one of the others is set to something else.
    """

    model: str
    replicas: int = 0
    description: dict[str, Any] | None = None
    capabilities: Capabilities = UNKNOWN
    unavailable: str | None = "not deployed"
    gone: bool = True
    message: str = ""
    generates: bool = True
    settled: bool = False
    under_trial: tuple[str, ...] = ()
    hung: tuple[str, ...] = ()
    reporting: tuple[str, ...] = ()
    by_priority: dict[Priority, int] = field(default_factory=lambda: dict.fromkeys(Priority, 0))
    by_caller: Counter[tuple[str, Priority]] = field(default_factory=Counter)
    _handles: dict[bool, DeploymentHandle[Any]] = field(default_factory=dict)
    revision: int = 0

    def __setattr__(self, name: str, value: object) -> None:
        changed = name != "revision" and getattr(self, name, _UNSET) != value
        object.__setattr__(self, name, value)
        if changed:
            object.__setattr__(self, "revision", getattr(self, "revision", 0) + 1)

    def handle(self, *, stream: bool) -> DeploymentHandle[Any]:
        """A handle of the model's deployment, made at the first use.

        Raises:
            ray.serve.exceptions.RayServeException: The application is not there.
        """
        if stream not in self._handles:
            name = model_deployment_name(self.model)
            base = serve.get_deployment_handle(name, application_name(self.model))
            self._handles[stream] = base.options(
                method_name="stream" if stream else "answer",
                stream=stream,
                request_serialization="pickle",
                response_serialization="pickle",
            )
        return self._handles[stream]

    @property
    def ongoing(self) -> int:
        """Requests that this router has there."""
        return sum(self.by_priority.values())

    @contextmanager
    def taken(self, priority: Priority, sequences: int, caller: str) -> Iterator[None]:
        """A request for so many answers is there during the `with` block."""
        count = places(sequences, self._slots)
        self.by_priority[priority] += count
        if caller:
            self.by_caller[caller, priority] += count
        try:
            yield
        finally:
            self.by_priority[priority] -= count
            if caller:
                self.by_caller[caller, priority] -= count
                if not self.by_caller[caller, priority]:
                    del self.by_caller[caller, priority]

    def held_back(self, caller: str) -> int:
        """Requests of other callers that wait for these, not these for them.

        Args:
            caller: Name of an API key; empty where there is none, and nothing is held back for it.
        """
        if not caller or self._slots is None:
            return 0
        totals: Counter[str] = Counter()
        for (other, _), count in self.by_caller.items():
            totals[other] += count
        most = share(self._slots) * max(self.replicas, 1)
        return sum(max(n - most, 0) for other, n in totals.items() if other != caller)

    @property
    def _slots(self) -> int | None:
        return (self.description or {}).get("max_num_seqs")

    @property
    def avoid(self) -> tuple[str, ...]:
        """Replicas that are not asked while there are others."""
        return self.under_trial + self.hung

    @property
    def all_avoided(self) -> bool:
        """Whether there are no others.

        Serve's count alone does not tell: one that it is replacing, because it hangs, has left the
        count and is still among those to avoid.
        """
        others = set(self.reporting).difference(self.avoid)
        return not others and len(self.avoid) >= self.replicas

    @property
    def accelerator(self) -> str | None:
        """Kind of device of the replicas, `None` while unknown."""
        return self.description["accelerator"] if self.description else None

    def state(
        self,
        profiles: ProfileSet,
        shared: SharedState,
        own: Mapping[str, int],
        unavailable: str | None,
        caller: str = "",
    ) -> ModelState:
        """This model for a decision.

        Args:
            profiles: Those in use.
            shared: The load, and what was learnt.
            own: This router's ongoing requests by model.
            unavailable: Why no request can go there now, see `ModelDirectory.why_not`.
            caller: Name of the API key that asks, empty where there is none.
        """
        description = self.description or {}
        profile = None
        if self.generates:
            profile = profiles.find(self.model, self.accelerator) or profiles.find(self.model)
        runtime_correction = energy_correction = NO_CORRECTION
        if profile is not None:
            key = (self.model, profile.accelerator, profile.fit_id)
            runtime_correction = shared.learning.corrections.runtime(*key)
            energy_correction = shared.learning.corrections.energy(*key)
        return ModelState(
            model=self.model,
            max_model_len=description.get("max_model_len"),
            profile=profile,
            ongoing=max(shared.loads.ongoing(self.model, self.ongoing) - self.held_back(caller), 0),
            replicas=self.replicas,
            slots=description.get("max_num_seqs"),
            queue=description.get("max_queued_requests"),
            ongoing_high=shared.loads.ongoing_high(self.model, self.by_priority[Priority.HIGH]),
            ongoing_low=shared.loads.ongoing_low(self.model, self.by_priority[Priority.LOW]),
            ongoing_caller={p: self.by_caller[caller, p] for p in Priority} if caller else {},
            slowdown=shared.loads.slowdown(self.model, own),
            runtime_correction=runtime_correction,
            energy_correction=energy_correction,
            lengths=shared.learning.lengths.lengths(self.model),
            unavailable=unavailable,
            capabilities=self.capabilities,
            places=shared.loads.places(self.model),
        )
