"""What `import_path` in the YAML names: builders of the router's and of a model's application.

No `from __future__ import annotations` here: Serve reads the type of `args` from the annotation.
"""

import logging
from typing import Any

from ray import serve
from ray.serve.schema import LoggingConfig

from cluster.naming import ROUTER_DEPLOYMENT, model_deployment_name
from deployments.config.app import RouterArgs
from deployments.config.gpu_shares import memory_utilization, with_worker_gpus
from deployments.config.model import AutoScaling, ModelArgs
from deployments.gate import Gate
from deployments.replica.admission import ReplicaLimits
from deployments.replica.deployment import ModelReplica
from deployments.replica.startup.options import deployment_options
from deployments.router.server import Router

logger = logging.getLogger("ray.serve")


def build_router(args: RouterArgs) -> serve.Application:
    """The application of the router."""
    deployment = serve.deployment(
        serve.ingress()(Router),
        name=ROUTER_DEPLOYMENT,
        num_replicas=args.num_replicas,
        # Admission is the router's own business: Serve's rejections are not OpenAI errors.
        max_ongoing_requests=1_000_000,
        ray_actor_options={"num_cpus": args.num_cpus},
        # A router that died is replaced at the first check; Serve's default is ten seconds.
        health_check_period_s=1.0,
        logging_config=LoggingConfig(enable_access_log=False),
    )
    return deployment.bind(args)


def build_model(args: ModelArgs) -> serve.Application:
    """The application of one model, built without importing vLLM, which takes seconds."""
    settings = llm_settings(args)
    options = deployment_options(model_deployment_name(args.model_id), settings)
    model = serve.deployment(ModelReplica, **options).bind(
        settings,
        start_order=args.start_order,
        watts_per_core=args.cpu_watts_per_core,
        limits=ReplicaLimits(args.hung_after_s, args.max_queued_requests, args.vetting.limits()),
    )
    gate = serve.deployment(Gate, name="Gate", ray_actor_options={"num_cpus": 0})
    return gate.bind(model)


def llm_settings(args: ModelArgs) -> dict[str, Any]:
    """Ray's configuration of a model: the arguments of its `LLMConfig`."""
    settings: dict[str, Any] = {
        "model_loading_config": {"model_id": args.model_id, "model_source": args.source},
        "engine_kwargs": {
            "worker_extension_cls": "deployments.replica.engine_worker.WorkerCalls",
            # Requests wait in the engine and nowhere else: one order for those of all routers.
            "scheduling_policy": "priority",
            **_share_of_memory(args),
            **args.engine_kwargs,
        },
        "deployment_config": _deployment_config(args),
        "placement_group_config": args.placement_group_config,
        "runtime_env": args.runtime_env,
    }
    if args.gpu_share is not None:
        settings["runtime_env"] = with_worker_gpus(args.runtime_env, args.gpu_share)
    if args.device == "cpu":
        settings["accelerator_config"] = {"kind": "cpu"}
    else:
        settings["accelerator_type"] = args.accelerator_type
    return {key: value for key, value in settings.items() if value is not None}


def _share_of_memory(args: ModelArgs) -> dict[str, float]:
    """Without it vLLM takes nine tenths of the GPU for each model on it."""
    if args.device == "cpu" or args.gpu_share is None:
        return {}
    utilization = memory_utilization(args.gpu_share)
    if "gpu_memory_utilization" not in args.engine_kwargs:
        logger.info(
            "%s: gpu_memory_utilization is %g, from GPU: %g of its placement",
            args.model_id,
            utilization,
            args.gpu_share,
        )
    return {"gpu_memory_utilization": utilization}


def _deployment_config(args: ModelArgs) -> dict[str, Any]:
    config: dict[str, Any] = {
        "max_ongoing_requests": 1_000_000,
        "request_router_config": {
            "request_router_class": "deployments.replica.startup.placement.TargetedRequestRouter"
        },
        "logging_config": {"enable_access_log": False},
        # Three failures in a row replace a replica; Serve's own defaults take half a minute.
        "health_check_period_s": 1.0,
        "health_check_timeout_s": 3.0,
        **args.deployment_config,
    }
    if isinstance(args.scaling, AutoScaling):
        config["autoscaling_config"] = args.scaling.model_dump(exclude={"mode"}, exclude_none=True)
    else:
        config["num_replicas"] = args.scaling.num_replicas
    return config
