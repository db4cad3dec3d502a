"""The variables that Ray has to be started with; Serve reads them once, when Ray starts."""

from __future__ import annotations

from collections.abc import Mapping

SERVE_FLAGS = {
    # HAProxy in front of the replicas, and user code on their own event loop.
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    # What no client may break or steer lies before all that Serve does with a request.
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "deployments.router.edge.middleware:middlewares",
    # A broken replica gives its GPU back at once.
    "RAY_SERVE_FORCE_STOP_UNHEALTHY_REPLICAS": "1",
    # HAProxy that died is missed within 3 s; three checks in a row have to fail.
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",
    # Ray's workers run at nice 15 otherwise, behind everything else: here they are the service.
    "RAY_worker_niceness": "0",
    # Else the second flag has replicas keep a thousand lines to themselves, warnings included.
    "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "1",
}
"""The user's own environment wins."""

FOR_SPEED = ("RAY_SERVE_ENABLE_HA_PROXY", "RAY_SERVE_THROUGHPUT_OPTIMIZED")


def slow_start(environment: Mapping[str, str]) -> str | None:
    """What to say where Ray was started without the flags that make requests fast.

    Args:
        environment: Of a process that Ray started.
    """
    missing = [name for name in FOR_SPEED if environment.get(name) != "1"]
    if not missing:
        return None
    return (
        f"Ray was started without {' and '.join(f'{name}=1' for name in missing)}: every request "
        "takes several milliseconds more; export them before `ray start`, on every node"
    )
