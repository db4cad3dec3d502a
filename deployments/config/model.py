"""The arguments of one model's application: its engine, its scaling, its limits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from cluster.energy.nvml import CPU_WATTS_PER_CORE
from deployments.config.base import Strict
from deployments.config.gpu_shares import bundle_gpus, gpu_share, worker_count
from deployments.config.limits import VettingConfig
from deployments.config.replica import PATIENCE_S


class FixedScaling(Strict):
    """A number of replicas that only `python -m cluster scale MODEL N` changes."""

    mode: Literal["fixed"] = "fixed"
    num_replicas: NonNegativeInt = 1


class AutoScaling(Strict):
    """Serve's autoscaler between two bounds."""

    mode: Literal["auto"]
    min_replicas: NonNegativeInt = 1
    max_replicas: PositiveInt = 1
    target_ongoing_requests: PositiveFloat = 8.0
    upscale_delay_s: NonNegativeFloat | None = Field(
        default=None,
        description="So long must more replicas be wanted; Serve's 30 s where null.",
    )
    downscale_delay_s: NonNegativeFloat | None = Field(
        default=None, description="So long fewer have to be wanted; Serve's 600 s where null."
    )

    @model_validator(mode="after")
    def _ordered(self) -> AutoScaling:
        if self.min_replicas > self.max_replicas:
            raise ValueError(
                f"min_replicas {self.min_replicas} is above max_replicas {self.max_replicas}"
            )
        return self


class ModelArgs(Strict):
    """`args` of a model's application (`deployments.app:build_model`)."""

    model_id: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]*(/[A-Za-z0-9._:-]+)*$",
        description="Name in the API; that of the application has `--` for each `/`.",
    )
    source: str = Field(
        min_length=1,
        description="Hugging Face id, local folder, or `embedded:NAME` for a built-in model.",
    )
    device: Literal["gpu", "cpu"] = Field(
        default="gpu",
        description="Where vLLM computes; `gpu` reserves a GPU for each worker, or the part of one "
        "that `placement_group_config` names.",
    )
    accelerator_type: str | None = Field(
        default=None, description="Kind of GPU to be placed on, as Ray names it (`A100`, `H100`)."
    )
    engine_kwargs: dict[str, Any] = Field(
        default_factory=dict, description="Arguments of the vLLM engine."
    )
    placement_group_config: dict[str, Any] | None = Field(
        default=None,
        description="Ray Serve LLM's placement bundles, where the default does not fit.",
    )
    deployment_config: dict[str, Any] = Field(
        default_factory=dict, description="Options of the Serve deployment."
    )
    runtime_env: dict[str, Any] | None = Field(
        default=None, description="Ray runtime environment of the replicas."
    )
    scaling: Annotated[FixedScaling | AutoScaling, Field(discriminator="mode")] = Field(
        default_factory=FixedScaling
    )
    start_order: NonNegativeInt | None = Field(
        default=None,
        description="Engines of one node start one after the other where it has few cores: the "
        "lowest first, then those without it, the smallest weights first.",
    )
    cpu_watts_per_core: PositiveFloat = Field(
        default=CPU_WATTS_PER_CORE,
        description="Watts of one busy core, for the estimate where no energy counter is readable.",
    )
    max_queued_requests: NonNegativeInt | None = Field(
        default=None,
        description="Requests of each priority that a replica queues, besides those that it runs "
        "(`max_num_seqs`); four times as many as those where it is null.",
    )
    hung_after_s: PositiveFloat = Field(
        default=PATIENCE_S,
        description="An engine that gives no sign of life for so long, and for three times its "
        "longest step, is replaced.",
    )
    vetting: VettingConfig = Field(default_factory=VettingConfig)

    @model_validator(mode="after")
    def _no_gpu_type_on_cpu(self) -> ModelArgs:
        if self.device == "cpu" and self.accelerator_type is not None:
            raise ValueError(f"accelerator_type {self.accelerator_type!r} needs device: gpu")
        return self

    @model_validator(mode="after")
    def _possible_gpu_share(self) -> ModelArgs:
        share = gpu_share(self.placement_group_config, self.engine_kwargs)
        if self.device == "cpu":
            return self
        held = len(bundle_gpus(self.placement_group_config, self.engine_kwargs))
        workers = worker_count(self.engine_kwargs)
        if share is None and held < workers:
            raise ValueError(
                f"placement_group_config: {held} of its bundles have a GPU, the engine's workers "
                f"need {workers} such bundles"
            )
        options = self.deployment_config.get("ray_actor_options")
        if isinstance(options, Mapping) and (gpus := options.get("num_gpus")):
            raise ValueError(
                f"deployment_config.ray_actor_options.num_gpus: {gpus!r}: only workers of the "
                f"engine compute; use placement_group_config: {{bundles: [{{GPU: {gpus!r}}}]}}"
            )
        return self

    @property
    def gpu_share(self) -> float | None:
        """The part of a GPU that a replica reserves; `None` for whole ones."""
        return gpu_share(self.placement_group_config, self.engine_kwargs)
