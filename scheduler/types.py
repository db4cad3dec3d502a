"""The values that travel through a decision: a request and a state in, a decision out.

Seconds, joules and generated tokens throughout. Nothing here knows Ray, HTTP or a clock.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from scheduler.capabilities import UNKNOWN, Capabilities, Need, Refusal
from scheduler.exclusions import Exclusion
from scheduler.preferences import (
    Constraints,
    LimitReport,
    LimitSettings,
    Metric,
    Weights,
)
from scheduler.priority import Priority
from scheduler.rules.rules import NO_RULING, Ruling

if TYPE_CHECKING:
    from scheduler.asides import BanditReport, ShadowChoice
    from scheduler.bandit.model import Bandit
    from scheduler.cascade import CascadeStep
    from scheduler.costs.lengths import OutputLength
    from scheduler.costs.profiles import ModelProfile, Reference
    from scheduler.sequential.posterior import AnswerModel
    from scheduler.sequential.steps import Plan
    from scheduler.session import Session


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
        quality_source: Names what estimated it, empty where nothing did.
        sequence: How many requests this router took before; drives `round_robin`.
        ruling: What the operator's rules say. Its weights, policy and constraints are in those of
            the request already.
        context: What feedback is learnt by, empty where nothing is to be learnt.
        session: The conversation that it belongs to, `None` where none is known.
        priority: Who is ahead of it.
        deadline_s: Seconds after which nobody waits for its answer any more.
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
    quality_source: str = ""
    sequence: int = 0
    estimated_inputs: frozenset[str] = frozenset()
    ruling: Ruling = NO_RULING
    context: tuple[float, ...] = ()
    session: Session | None = None
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
        slots: Requests that one replica runs side by side; more wait. `None`: no limit is known.
        queue: Requests of each priority that one replica takes beside as many as it has slots,
            `None` for any number.
        slowdown: How many times longer everything takes because the device computes for others.
        runtime_correction: Of the predicted seconds.
        energy_correction: Of the predicted joules.
        lengths: Generated tokens by task class; under the empty name for all together.
        unavailable: Why it cannot take requests now (`None`: it can).
        capabilities: What its engine takes.
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
    slowdown: float = 1.0
    runtime_correction: Correction = NO_CORRECTION
    energy_correction: Correction = NO_CORRECTION
    lengths: Mapping[str, OutputLength] = field(default_factory=dict)
    unavailable: str | None = None
    capabilities: Capabilities = UNKNOWN


@dataclass(frozen=True, slots=True)
class ClusterState:
    """All models, and what the policies need to know beside them.

    Attributes:
        models: In the order of the configuration.
        profile_version: Content hash of the profile set that the profiles come from.
        reference: Means and deviations for the policy `utility`, `None` where unknown.
        static_model: The model that the policy `static` always takes; the first one if `None`.
        limits: Of the policy `constrained`.
        cascade: Of the policy `cascade`, the first model first.
        bandit: What feedback taught, for the policy `bandit`; `None` where nobody asks it.
        may_explore: Whether `bandit` may choose what is not the best as far as is known.
        answers: How answers of the models agree, for the policy `sequential`; `None`: the prior.
    """

    models: tuple[ModelState, ...]
    profile_version: str
    reference: Reference | None = None
    static_model: str | None = None
    limits: LimitSettings = field(default_factory=LimitSettings)
    cascade: tuple[CascadeStep, ...] = ()
    bandit: Bandit | None = None
    may_explore: bool = False
    answers: AnswerModel | None = None


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
        profile_origin: Where the costs come from, see `scheduler.costs.origins`; empty: unknown.
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
    """

    model: str
    score: float
    prediction: Prediction
    accuracy: float
    accuracy_imputed: bool
    stages: Mapping[Metric, Stages]


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
        quality_source: What estimated the accuracies for this prompt, empty: the profiles did.
        limits: How the request's limits were kept, `None` where it has none.
        rules: Names of the operator's rules that fit.
        bandit: What feedback can teach by, `None` where nothing is to be learnt.
        shadow: The choice of a policy beside it, `None` where there is none.
        canary: `policy` is the one that a share of the traffic is for.
        session: The conversation that the request belongs to, `None` where none is known.
        cascade: Whom to ask in turn, `model` first; empty where only one model is asked.
        plan: Of the policy `sequential`: what to do after each answer; `None` for other policies.
    """

    decision_id: str
    model: str
    policy: str
    weights: Weights
    profile_version: str
    candidates: Sequence[Candidate]
    excluded: tuple[Exclusion, ...]
    task: str = ""
    quality_source: str = ""
    limits: LimitReport | None = None
    rules: tuple[str, ...] = ()
    bandit: BanditReport | None = None
    shadow: ShadowChoice | None = None
    canary: bool = False
    session: Session | None = None
    cascade: tuple[CascadeStep, ...] = ()
    plan: Plan | None = None

    @property
    def chosen(self) -> Candidate:
        """The candidate that the request goes to.

        Raises:
            IndexError: A pinned model without a prediction.
        """
        return self.candidates[0]
