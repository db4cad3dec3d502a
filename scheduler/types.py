"""The values that travel through a decision: a request and a state in, a decision out.

Seconds, joules and generated tokens throughout. Nothing here knows Ray, HTTP or a clock.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

from scheduler.capabilities import UNKNOWN, Capabilities, Need, Refusal
from scheduler.exclusions import Exclusion
from scheduler.extras import Extras, of_kind
from scheduler.preferences import Constraints, Metric, Weights
from scheduler.priority import Priority

if TYPE_CHECKING:
    from scheduler.costs.lengths import OutputLength
    from scheduler.costs.meeting import Meeting
    from scheduler.costs.profiles import ModelProfile, Reference

T = TypeVar("T")
NO_EXTRAS: Extras = {}
NORMAL_90 = 1.645
"""Standard deviations from the middle of a normal distribution to the ends of its central 90 %."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A central 90 % prediction interval."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class QualityEstimate:
    """How likely one model is to answer one prompt right.

    Attributes:
        accuracy: Probability of a right answer.
        interval: Where the share of right answers to prompts that are rated like this one lies.
        familiarity: 1 where the prompt looks like those that were learnt from, 0 where it has
            nothing of them and `accuracy` is the model's mean.
    """

    accuracy: float
    interval: Interval
    familiarity: float = 1.0


class Report(Protocol):
    """What a policy or an optional feature says of a decision.

    Attributes:
        name: Its key in `Decision.reports`, and the field of the decision in JSON.
    """

    name: ClassVar[str]

    def to_json(self) -> Any:
        """The value of the field: whatever a JSON encoder takes."""
        ...


R = TypeVar("R", bound=Report)


@dataclass(frozen=True, slots=True)
class CachedPrefix:
    """The beginning of a prompt that one replica of a model holds in its prefix cache.

    Attributes:
        tokens: How many that need not be computed again.
        replica_id: Of the replica.
    """

    tokens: int
    replica_id: str


@dataclass(frozen=True, slots=True)
class RoutingRequest:
    """What has to be decided about one prompt.

    Attributes:
        decision_id: Names the decision; also the seed of the policy `random`.
        input_tokens: Prompt tokens by model id, as each model's own tokenizer counts them.
        estimated_inputs: Model ids whose `input_tokens` are an estimate.
        max_tokens: Upper bound of generated tokens, `None` where the user gave none.
        output_tokens: Generated tokens where they are known beforehand, else `None`.
        models: The only models to consider, `None` for all.
        task: Task class of the prompt, empty where none is known.
        quality: What was estimated of this prompt, by model id; the profiles' accuracies stand in
            for models that are not there.
        sequence: How many requests this router took before; drives `round_robin`.
        barred: Models that must not answer, and why.
        preferred: Where one of these models can answer, it does, whatever the policy prefers.
        kept: The model that answers wherever it can, whatever policy and rules prefer: it is in the
            middle of something.
        limits_from: Where limits come from that the client did not ask for, for error messages;
            they are in `constraints` already.
        cached: Prompt tokens in prefix caches, by model id.
        explore: Whether a policy may choose what is not the best, in order to learn from it.
        extras: What single policies look at, by type.
        reports: What is known before the decision that is to be reported with it, by name.
        priority: Who is ahead of it.
        deadline_s: Seconds after which its client no longer waits.
        prompts: Prompts that it has; `input_tokens` are those of all together.
        sequences: Answers that are generated side by side, those of all prompts together;
            `output_tokens` and `max_tokens` are those of one.
        needs: What it needs of an engine.
        refused: What the chat template of a model says of this very request, by model id.
        doubted: What a model's engine said of a request of this kind lately, by model id.
        prompt_field: Member of the request that the prompt comes from,
        max_tokens_field: and the one with `max_tokens`.
    """

    decision_id: str
    input_tokens: Mapping[str, int]
    max_tokens: int | None = None
    output_tokens: int | None = None
    weights: Weights = field(default_factory=Weights)
    policy: str = "weighted"
    models: tuple[str, ...] | None = None
    constraints: Constraints = field(default_factory=Constraints)
    task: str = ""
    quality: Mapping[str, QualityEstimate] = field(default_factory=dict)
    sequence: int = 0
    estimated_inputs: frozenset[str] = frozenset()
    barred: Mapping[str, str] = field(default_factory=dict)
    preferred: tuple[str, ...] = ()
    kept: str | None = None
    limits_from: str = ""
    cached: Mapping[str, CachedPrefix] = field(default_factory=dict)
    explore: bool = True
    extras: Extras = field(default_factory=dict)
    reports: Mapping[str, Report] = field(default_factory=dict)
    priority: Priority = Priority.NORMAL
    deadline_s: float = math.inf
    prompts: int = 1
    sequences: int = 1
    needs: tuple[Need, ...] = ()
    refused: Mapping[str, Refusal] = field(default_factory=dict)
    doubted: Mapping[str, Refusal] = field(default_factory=dict)
    prompt_field: str = "prompt"
    max_tokens_field: str = "max_tokens"


@dataclass(frozen=True, slots=True)
class Correction:
    """What the latest requests say about one predicted cost of one model.

    Attributes:
        factor: Actual over predicted, at this moment.
        low: 5 % quantile of actual over corrected prediction, `None` until enough is known.
        high: 95 % quantile of the same.
        observations: Requests that it was learnt from.
    """

    factor: float = 1.0
    low: float | None = None
    high: float | None = None
    observations: int = 0


NO_CORRECTION = Correction()


Place = tuple[str, str]
"""A node and the devices on it that a replica runs on."""


@dataclass(frozen=True, slots=True)
class ModelState:
    """One model as the router sees it at this moment.

    Attributes:
        model: Model id.
        max_model_len: Context length in tokens, `None` where it is not known yet.
        profile: Fitted costs, `None` until the model is profiled.
        ongoing: Requests that are running or waiting on it, on all replicas and from all routers.
        replicas: Running replicas.
        ongoing_high: Those of them that have the priority `HIGH`.
        ongoing_low: Likewise, `LOW`.
        ongoing_caller: Those of the API key that asks, by their priority, as far as this router
            sent them; empty where there is none.
        slots: Requests that one replica runs side by side; more wait. `None`: no limit is known.
        queue: Requests of each priority that one replica takes besides as many as it has slots,
            `None` for any number.
        slowdown: How many times longer everything takes because the device computes for others.
        runtime_correction: Of the predicted seconds.
        energy_correction: Of the predicted joules.
        lengths: Generated tokens by task class; under the empty name for all together.
        unavailable: Why it cannot take requests now (`None`: it can).
        capabilities: What its engine takes.
        places: Nodes and devices that its replicas run on, empty where unknown.
        met: What follows from all of this for a request, kept by `scheduler.costs.predict.meeting`.
    """

    model: str
    max_model_len: int | None = None
    profile: ModelProfile | None = None
    ongoing: float = 0
    replicas: int = 1
    slots: int | None = None
    queue: int | None = None
    ongoing_high: float = 0
    ongoing_low: float = 0
    ongoing_caller: Mapping[Priority, float] = field(default_factory=dict)
    slowdown: float = 1.0
    runtime_correction: Correction = NO_CORRECTION
    energy_correction: Correction = NO_CORRECTION
    lengths: Mapping[str, OutputLength] = field(default_factory=dict)
    unavailable: str | None = None
    capabilities: Capabilities = UNKNOWN
    places: frozenset[Place] = frozenset()
    met: dict[int, Meeting] = field(default_factory=dict, init=False, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class ClusterState:
    """All models, and what the policies need to know of the rest.

    Attributes:
        models: In the order of the configuration.
        profile_version: Content hash of the profile set that the profiles come from.
        reference: Means and deviations for the policy `utility`, `None` where unknown.
        extras: What single policies look at, by type; see `Policy.needs`.
    """

    models: tuple[ModelState, ...]
    profile_version: str
    reference: Reference | None = None
    extras: Extras = field(default_factory=dict)

    def find(self, kind: type[T]) -> T | None:
        """The extra of one type, `None` where there is none."""
        return of_kind(self.extras, kind)


@dataclass(frozen=True, slots=True)
class Prediction:
    """What one model would cost for one request.

    Attributes:
        input_tokens: Prompt tokens, of all prompts together.
        input_tokens_exact: They were counted, not estimated.
        cached_input_tokens: Those of them that cost nothing, because an earlier turn of the
            conversation left them in the model's cache.
        output_tokens: Expected number of generated tokens, of all answers together.
        output_tokens_interval: Their interval; both ends equal where the number is known.
        runtime_s: End-to-end seconds, `wait_s` included.
        energy_joules: Joules drawn for the request.
        accuracy: Probability of a right answer, `None` where unknown.
        accuracy_interval: Of an estimate for this very prompt, else `None`.
        familiarity: How much this prompt looks like those the estimate was learnt from, 0..1;
            `None` without such an estimate.
        concurrency: Answers that will be generated side by side on its replica, its own included.
        sequences: Its own.
        wait_s: Seconds until the engine begins with it.
        runtime_factor: Correction that is in `runtime_s`.
        energy_factor: Correction that is in `energy_joules`.
        extrapolates: Tokens or concurrency lie outside what was profiled; the intervals are wider.
        profile_origin: Where the costs come from, see `scheduler.costs.priors.origins`; empty:
            unknown.
        profile_trials: Trials that they were fitted on.
    """

    input_tokens: int
    output_tokens: int
    output_tokens_interval: Interval
    runtime_s: float
    energy_joules: float
    accuracy: float | None
    runtime_interval_s: Interval
    energy_interval_joules: Interval
    accuracy_interval: Interval | None = None
    familiarity: float | None = None
    concurrency: float = 1.0
    wait_s: float = 0.0
    runtime_factor: float = 1.0
    energy_factor: float = 1.0
    extrapolates: bool = False
    input_tokens_exact: bool = True
    cached_input_tokens: int = 0
    sequences: int = 1
    profile_origin: str = ""
    profile_trials: int = 0


@dataclass(frozen=True, slots=True)
class Stages:
    """One metric of one candidate through the five stages of the normalization."""

    z: float
    log: float
    minmax: float
    softmax: float
    rebased: float


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model that was compared, with everything that the comparison used.

    Attributes:
        score: Lower is better; what it means depends on the policy.
        accuracy: The accuracy that was used: the profile's, or the mean of the others.
        accuracy_imputed: True where the model has no accuracy of its own.
        stages: By metric.
        delays_others_s: Seconds that the requests of models on the same device would wait for it
            in all; a part of its costs in time, not of its predicted runtime.
    """

    model: str
    score: float
    prediction: Prediction
    accuracy: float
    accuracy_imputed: bool
    stages: Mapping[Metric, Stages]
    delays_others_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Decision:
    """The outcome.

    Attributes:
        model: Model that the request goes to.
        policy: Policy that chose it, or `pinned` where the request named the model.
        weights: The request's, scaled to a sum of 1.
        candidates: Best first. Empty only where a pinned model has no usable prediction.
        excluded: Models that were left out.
        task: Task class of the prompt, empty where none is known.
        cached: Prompt tokens in prefix caches, as in the request.
        reports: What the policy and the optional features say of it, by name.
    """

    decision_id: str
    model: str
    policy: str
    weights: Weights
    profile_version: str
    candidates: Sequence[Candidate]
    excluded: tuple[Exclusion, ...]
    task: str = ""
    cached: Mapping[str, CachedPrefix] = field(default_factory=dict)
    reports: Mapping[str, Report] = field(default_factory=dict)

    @property
    def chosen(self) -> Candidate:
        """The candidate that the request goes to.

        Raises:
            IndexError: A pinned model without a prediction.
        """
        return self.candidates[0]

    def report(self, kind: type[R]) -> R | None:
        """The report of one class, `None` where there is none."""
        found = self.reports.get(kind.name)
        return found if isinstance(found, kind) else None
