"""The YAML, typed: what `serve_config.yaml` may say, with the field's name in every error."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from cluster.naming import AUTO, DEFAULT_DATA_DIR, application_name
from cluster.store.archive.entries import Retention
from deployments.config.base import Strict
from deployments.config.clients import ClientsConfig
from deployments.config.grid import GridConfig
from deployments.config.learning import BanditConfig, CanaryConfig, ShadowConfig
from deployments.config.limits import Limits
from deployments.config.policies import CascadeStepConfig, ConstrainedConfig, PolicyName
from deployments.config.rules import MAX_RULES, RuleConfig
from scheduler.errors import InvalidRequestError
from scheduler.policies import POLICIES
from scheduler.policies.baselines import StaticModel
from scheduler.policies.cascade import Ladder
from scheduler.preferences import LimitSettings, Weights


class RouterArgs(Strict):
    """`args` of the router's application (`deployments.app:build_router`)."""

    data_dir: str = Field(
        default=DEFAULT_DATA_DIR,
        description="Absolute folder of profiles, raw records and decisions; `~` is the user's.",
    )
    num_replicas: PositiveInt = 1
    num_cpus: NonNegativeFloat = Field(
        default=1.0, description="Logical CPUs that a replica reserves."
    )
    max_body_bytes: PositiveInt = Field(
        default=32 * 2**20,
        description="Larger bodies get 413, compressed ones by what they inflate to.",
    )
    keys_file: str | None = Field(
        default=None, description="YAML file of API keys, on every node that runs a router."
    )
    request_timeout_s: PositiveFloat = Field(default=600.0, description="Longer requests get 504.")
    stalled_client_s: PositiveFloat = Field(
        default=30.0,
        description="A client that reads nothing of its answer for so long is disconnected.",
    )
    keep_alive_s: PositiveFloat | None = Field(
        default=15.0,
        description="A stream that has sent nothing for so long gets a comment line, so that "
        "proxies and clients do not hang up; null for never.",
    )
    max_attempts: PositiveInt = Field(
        default=3,
        description="Replicas and models that are tried for one request, the first included.",
    )
    idempotency_max_bytes: PositiveInt = Field(
        default=128 * 2**20,
        description="Of answers to requests with an Idempotency-Key that are kept for a day, "
        "compressed, in the store and in each router; beyond it the oldest go.",
    )

    record_max_bytes: PositiveInt = Field(
        default=2**30, description="Size of the record of decisions; beyond it the oldest go."
    )
    record_max_age_days: PositiveFloat | None = Field(
        default=90.0, description="Older decisions go from the record; null for never."
    )
    record_content: bool = Field(
        default=False,
        description="Whether requests and answers are recorded too, as they were sent.",
    )

    @property
    def retention(self) -> Retention:
        """How much the store keeps of the record."""
        days = self.record_max_age_days
        return Retention(self.record_max_bytes, None if days is None else days * 86_400)

    @field_validator("data_dir")
    @classmethod
    def _absolute(cls, value: str) -> str:
        expanded = Path(value).expanduser()
        if not expanded.is_absolute():
            raise ValueError(f"must be an absolute path, got {value!r}")
        return str(expanded)


class RoutedModel(Strict):
    """One model that the router may send requests to."""

    id: str = Field(
        min_length=1,
        description="Model id; the name of its application, where that has `--` for each `/`.",
    )
    wake: bool = Field(
        default=False,
        description="A request wakes it where Serve's autoscaler took it to 0 replicas; for "
        "`scaling: {mode: auto, min_replicas: 0}` only.",
    )


class DefaultWeights(Strict):
    """Weights of a request that names none."""

    accuracy: NonNegativeFloat = 1.0
    energy: NonNegativeFloat = 1.0
    time: NonNegativeFloat = 1.0
    price: NonNegativeFloat = Field(default=0.0, description="Of energy, by its price.")
    carbon: NonNegativeFloat = Field(default=0.0, description="Of energy, by its CO2.")

    @model_validator(mode="after")
    def _usable(self) -> DefaultWeights:
        # Else a request that names no weights would be rejected for those of the configuration.
        try:
            self.weights()
        except InvalidRequestError as error:
            raise ValueError(str(error).removeprefix("routing.")) from error
        return self

    def weights(self) -> Weights:
        """For a decision."""
        return Weights(self.accuracy, self.energy + self.price + self.carbon, self.time)


class SessionsConfig(Strict):
    """Turns of one conversation, and where they went."""

    enabled: bool = Field(
        default=True, description="Whether tokens in a replica's prefix cache count in a decision."
    )
    max_sessions: PositiveInt = Field(
        default=10_000, description="Conversations that a router remembers; the oldest go first."
    )
    max_idle_s: PositiveFloat = Field(
        default=600.0, description="Seconds after its last turn that one is remembered."
    )


class RouterConfig(ClientsConfig):
    """`user_config` of the router's deployment: may be changed without a restart."""

    models: tuple[RoutedModel, ...] = ()
    prior_profiles: str | None = Field(
        default=None,
        description="Profiles until the models are profiled here: `embedded`, `seed`, `library` "
        "or a file.",
    )
    default_weights: DefaultWeights = Field(default_factory=DefaultWeights)
    default_policy: PolicyName = "weighted"
    static_model: str | None = Field(default=None, description="Model of the policy `static`.")
    limits: Limits = Field(default_factory=Limits)
    exact_count_bytes: NonNegativeInt = Field(
        default=200_000,
        description="Prompts of more bytes, as JSON, are not tokenized; their input tokens are "
        "estimated.",
    )
    grid: GridConfig | None = Field(
        default=None, description="What a kilowatt-hour costs, in money and in CO2."
    )
    constrained: ConstrainedConfig = Field(default_factory=ConstrainedConfig)
    rules: tuple[RuleConfig, ...] = Field(
        default=(), max_length=MAX_RULES, description="In this order; the first that fits counts."
    )
    sessions: SessionsConfig = Field(default_factory=SessionsConfig)
    bandit: BanditConfig = Field(default_factory=BanditConfig)
    shadow: ShadowConfig | None = Field(
        default=None,
        description="A second policy that decides on every request and dispatches nothing.",
    )
    canary: CanaryConfig | None = Field(
        default=None, description="A policy that gets a share of the traffic."
    )
    cascade: tuple[CascadeStepConfig, ...] = Field(
        default=(), description="Models of the policy `cascade`, the cheapest first."
    )
    blame_memory_s: PositiveFloat = Field(
        default=600.0,
        le=86_400,
        description="Seconds that a request is remembered for that broke engines; the next one of "
        "its kind is answered at once.",
    )
    max_waking_requests: PositiveInt = Field(
        default=256,
        description="Requests that a router holds for a model at 0 replicas; more get 429.",
    )
    probe_interval_s: PositiveFloat | None = Field(
        default=300.0,
        description="A model that has answered nothing for so long gets a short request of the "
        "router's own, while there is traffic; null for never.",
    )

    @field_validator("models")
    @classmethod
    def _unique(cls, models: tuple[RoutedModel, ...]) -> tuple[RoutedModel, ...]:
        counts = Counter(model.id for model in models)
        twice = [name for name, count in counts.items() if count > 1]
        if twice:
            raise ValueError(f"two models are named {twice[0]!r}")
        if AUTO in counts:
            raise ValueError("'auto' is the name of the scheduler, no model can have it")
        applications = Counter(application_name(name) for name in counts)
        if shared := [name for name, count in applications.items() if count > 1]:
            same = " and ".join(repr(n) for n in counts if application_name(n) == shared[0])
            raise ValueError(f"{same} would have the same application {shared[0]!r}")
        return models

    @field_validator("rules")
    @classmethod
    def _rules_have_names_of_their_own(
        cls, rules: tuple[RuleConfig, ...]
    ) -> tuple[RuleConfig, ...]:
        counts = Counter(rule.name for rule in rules)
        if twice := [name for name, count in counts.items() if count > 1]:
            raise ValueError(f"two rules are named {twice[0]!r}")
        return rules

    @field_validator("cascade")
    @classmethod
    def _climbs(cls, steps: tuple[CascadeStepConfig, ...]) -> tuple[CascadeStepConfig, ...]:
        if len(steps) == 1 or len({step.model for step in steps}) < len(steps):
            raise ValueError("needs two models or more, each once")
        if any((step.accept_above is None) != (step is steps[-1]) for step in steps):
            raise ValueError("every model but the last needs `accept_above`, the last takes none")
        return steps

    @model_validator(mode="after")
    def _fits_together(self) -> RouterConfig:
        for place, policy in self.named_policies():
            if not self.cascade and Ladder in POLICIES[policy].needs:
                raise ValueError(f"{place} {policy!r} needs `cascade`")
        routed = {model.id for model in self.models}
        if unknown := [step.model for step in self.cascade if step.model not in routed]:
            raise ValueError(f"cascade: model {unknown[0]!r} is not among the models")
        self.check_names(routed)
        grid = self.grid or GridConfig()
        for weight, field in (("price", "price_per_kwh"), ("carbon", "g_co2_per_kwh")):
            if getattr(self.default_weights, weight) and getattr(grid, field) is None:
                raise ValueError(f"default_weights: {weight!r} needs grid.{field}")
        if self.static_model is not None and self.static_model not in routed:
            raise ValueError(f"static_model {self.static_model!r} is not among the models")
        fixed = self.constrained.model
        if fixed is not None and fixed not in routed:
            raise ValueError(f"constrained: model {fixed!r} is not among the models")
        return self

    def named_policies(self) -> list[tuple[str, str]]:
        """Every policy that is named, and where, for messages."""
        named = [("default_policy", self.default_policy)]
        named += [
            (f"rule {r.name!r}: then.policy", r.then.policy) for r in self.rules if r.then.policy
        ]
        tried = {"shadow": self.shadow, "canary": self.canary}
        return named + [(f"{name}.policy", part.policy) for name, part in tried.items() if part]

    def policy_inputs(self) -> dict[type, object]:
        """What the configuration says to single policies, for `ClusterState.extras`."""
        inputs: dict[type, object] = {LimitSettings: self.constrained.settings()}
        if self.cascade:
            inputs[Ladder] = Ladder(tuple(step.step() for step in self.cascade))
        if self.static_model is not None:
            inputs[StaticModel] = StaticModel(self.static_model)
        return inputs
