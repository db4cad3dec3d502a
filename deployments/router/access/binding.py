"""Which address Serve listens on: the second and last private name, see deployments.engine."""

from __future__ import annotations

from ray.serve.context import _get_global_client


def serve_host() -> str | None:
    """`http_options.host` of the running Serve instance; `None` where HTTP is off."""
    host = _get_global_client().http_config.host
    return None if host is None else str(host)
