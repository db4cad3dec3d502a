"""How many replicas a model has, and how that is changed.

A model is scaled in one of two ways, and Serve has another call for each. Fixed: the number is
set from outside and changes nothing else. Automatic: Serve's autoscaler moves it between bounds
that are arguments of the application, so new bounds redeploy that one application, which
restarts its replicas. Both calls return before anything happened; the functions here wait until
it did, and fail if it did not.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from cluster.naming import application_name, model_deployment_name
from cluster.serve_api import Application, Deployment, ReplicaRange, ServeApi, ServeDetails

POLL_S = 0.5

Progress = Callable[[Application], None]


class ScalingError(Exception):
    """The model has not become what was asked for."""


class ScalingUsageError(ScalingError):
    """What was asked for makes no sense for this model; nothing was changed."""


class UnknownModelError(ScalingUsageError):
    """No application serves a model of this name."""


@dataclass(frozen=True, slots=True)
class ScaleResult:
    """What a scaling did; counts are of running replicas."""

    model: str
    replicas_before: int
    replicas_after: int
    duration_s: float


def model_deployment(application: Application) -> Deployment | None:
    """The deployment that serves the model; `None` for other applications and while it is built."""
    return application.deployments.get(model_deployment_name(application.name))


def scale_fixed(
    api: ServeApi,
    model: str,
    replicas: int,
    *,
    timeout_s: float,
    on_progress: Progress,
) -> ScaleResult:
    """Give a model a number of replicas, and wait until they run and the others have drained.

    Raises:
        ScalingUsageError: No such model, or it is scaled automatically, or from nowhere.
        ScalingError: The count was not reached in time, or somebody else changed it meanwhile.
        ServeApiError: Serve cannot be reached or refuses.
    """
    if replicas < 0:
        raise ScalingUsageError(f"replicas: must be 0 or more, got {replicas}")
    application = find_model(api.details(), model)
    deployment = _deployment_of(application)
    if deployment.autoscaling:
        raise ScalingUsageError(
            f"model {model!r} is scaled automatically ({deployment.autoscaling.minimum} to "
            f"{deployment.autoscaling.maximum} replicas): give --min and --max instead of a number"
        )
    if not application.external_scaler:
        raise ScalingUsageError(
            f"model {model!r} cannot be scaled from outside: set external_scaler_enabled: true "
            "on its application in the YAML"
        )
    started = time.monotonic()
    api.set_replicas(application.name, deployment.name, replicas)

    def reached(now: Deployment) -> bool:
        if now.target_replicas != replicas:
            raise ScalingError(
                f"model {model!r}: asked for {replicas} replicas and Serve answered yes, "
                f"but its target is {now.target_replicas}"
            )
        return len(now.replicas) == now.count("RUNNING") == replicas

    after = _wait(api, model, reached, timeout_s=timeout_s, on_progress=on_progress)
    return _result(model, deployment, after, started)


def scale_auto(
    api: ServeApi,
    model: str,
    bounds: ReplicaRange,
    *,
    timeout_s: float,
    on_progress: Progress,
) -> ScaleResult:
    """Give Serve's autoscaler new bounds for a model, and wait until it runs with them.

    Reads the config of all applications, changes one and puts it back: two of these at the same
    time, or one during a `serve deploy`, and the later one wins.

    Raises:
        ScalingUsageError: No such model, its count is fixed, or the bounds are none.
        ScalingError: The application failed, or did not get there in time.
        ServeApiError: Serve cannot be reached or refuses.
    """
    if not 0 <= bounds.minimum <= bounds.maximum or bounds.maximum < 1:
        raise ScalingUsageError(
            f"--min, --max: must be 0 <= min <= max and max >= 1, "
            f"got {bounds.minimum} and {bounds.maximum}"
        )
    details = api.details()
    deployment = _deployment_of(find_model(details, model))
    if not deployment.autoscaling:
        raise ScalingUsageError(
            f"model {model!r} has a fixed number of replicas: give a number instead of --min and "
            "--max, or set scaling: {mode: auto} in the YAML"
        )
    started = time.monotonic()
    api.deploy(config_with_bounds(details, model, bounds))

    def reached(now: Deployment) -> bool:
        return (
            now.status == "HEALTHY"
            and now.autoscaling == bounds
            and len(now.replicas) == now.count("RUNNING")
            and bounds.minimum <= len(now.replicas) <= bounds.maximum
        )

    after = _wait(api, model, reached, timeout_s=timeout_s, on_progress=on_progress)
    return _result(model, deployment, after, started)


def find_model(details: ServeDetails, model: str) -> Application:
    """The application that serves a model.

    Raises:
        UnknownModelError: Names the models that there are.
    """
    # An application without deployments is being built, or failed to build: it may be a model.
    models = {
        name: application
        for name, application in details.applications.items()
        if model_deployment(application) or not application.deployments
    }
    name = application_name(model)
    if name not in models:
        raise UnknownModelError(
            f"unknown model {model!r}; deployed models: {', '.join(models) or 'none'}"
        )
    return models[name]


def config_with_bounds(details: ServeDetails, model: str, bounds: ReplicaRange) -> dict[str, Any]:
    """The config of the whole Serve instance with other bounds for one model.

    Applications that were deployed from Python have no config; Serve leaves them alone.

    Raises:
        ScalingUsageError: The model was deployed from Python.
    """
    applications = [
        deepcopy(dict(app.config)) for app in details.applications.values() if app.config
    ]
    for config in applications:
        if config["name"] == application_name(model):
            args = config.setdefault("args", {})
            args["scaling"] = {
                **args.get("scaling", {}),
                "mode": "auto",
                "min_replicas": bounds.minimum,
                "max_replicas": bounds.maximum,
            }
            return {**details.options, "applications": applications}
    raise ScalingUsageError(f"model {model!r} was not deployed from a config, so it has no bounds")


def _deployment_of(application: Application) -> Deployment:
    deployment = model_deployment(application)
    if deployment is None:
        reason = f": {application.message}" if application.message else ""
        raise ScalingUsageError(
            f"model {application.name!r} is not up yet ({application.status}{reason})"
        )
    return deployment


def _wait(
    api: ServeApi,
    model: str,
    reached: Callable[[Deployment], bool],
    *,
    timeout_s: float,
    on_progress: Progress,
) -> Deployment:
    deadline = time.monotonic() + timeout_s
    while True:
        application = find_model(api.details(), model)
        on_progress(application)
        deployment = model_deployment(application)
        if deployment and reached(deployment):
            return deployment
        if application.status == "DEPLOY_FAILED":
            raise ScalingError(f"model {model!r}: deployment failed: {_explain(application)}")
        if time.monotonic() >= deadline:
            raise ScalingError(
                f"model {model!r}: not there after {timeout_s:g} s: {_explain(application)}"
            )
        time.sleep(POLL_S)


def _explain(application: Application) -> str:
    deployment = model_deployment(application)
    if deployment is None:
        return f"{application.status} {application.message}".strip()
    states = ", ".join(replica.state for replica in deployment.replicas) or "no replicas"
    message = deployment.message or application.message
    return f"{states}{': ' if message else ''}{message}"


def _result(model: str, before: Deployment, after: Deployment, started: float) -> ScaleResult:
    return ScaleResult(
        model=model,
        replicas_before=before.count("RUNNING"),
        replicas_after=after.count("RUNNING"),
        duration_s=time.monotonic() - started,
    )
