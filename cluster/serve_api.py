"""Serve's REST API on the Ray dashboard: what is deployed, and how to change it.

Knows the wire format, Ray's token authentication and nothing of models; the rules of scaling
are in `cluster.scaling`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, urlencode

import httpx

APPLICATIONS_PATH = "/api/serve/applications/"
NODES_PATH = "/nodes?view=summary"
LOGS_PATH = "/api/v0/logs"
OPTIONS = ("proxy_location", "http_options", "grpc_options", "target_capacity")
"""What a Serve config has besides `applications` and is reported back by Serve."""


class ServeApiError(Exception):
    """Base of what can go wrong between here and Serve."""


class DashboardUnreachableError(ServeApiError):
    """Nothing that speaks Serve's REST API answers at the address."""


class DashboardAuthError(ServeApiError):
    """The cluster wants a token: there is none here, or another one."""


class ServeRequestError(ServeApiError):
    """Serve refused a request; the message is Serve's."""


@dataclass(frozen=True, slots=True)
class Replica:
    """One running instance; what is `None` is known when it has started.

    Attributes:
        log_file: Of its node, below Ray's folder of logs.
    """

    replica_id: str
    state: str
    node_id: str | None
    pid: int | None
    log_file: str | None = None


@dataclass(frozen=True, slots=True)
class ReplicaRange:
    """Bounds of Serve's autoscaler."""

    minimum: int
    maximum: int


@dataclass(frozen=True, slots=True)
class Deployment:
    """One Serve deployment; `autoscaling` is `None` where its count is fixed."""

    name: str
    status: str
    message: str
    target_replicas: int
    autoscaling: ReplicaRange | None
    replicas: tuple[Replica, ...]

    def count(self, state: str) -> int:
        """Replicas in a state (`RUNNING`, `STARTING`, `STOPPING`, ...)."""
        return sum(replica.state == state for replica in self.replicas)


@dataclass(frozen=True, slots=True)
class Application:
    """One Serve application.

    Attributes:
        config: The entry of the YAML that it was deployed from, `None` where it was deployed
            from Python. Not in the repr: environment variables may carry secrets.
        deployments: By name; empty while Serve builds the application.
    """

    name: str
    status: str
    message: str
    route_prefix: str | None
    external_scaler: bool
    config: Mapping[str, Any] | None = field(repr=False)
    deployments: Mapping[str, Deployment]


@dataclass(frozen=True, slots=True)
class ServeDetails:
    """All applications by name, and the options of the Serve instance."""

    applications: Mapping[str, Application]
    options: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU as Ray's dashboard sees it."""

    name: str
    utilization_percent: float
    memory_used_bytes: float
    memory_total_bytes: float


@dataclass(frozen=True, slots=True)
class Node:
    """One node as Ray's dashboard sees it; figures are 0 where it has none of it."""

    hostname: str
    is_head: bool
    state: str
    cores: int
    cpu_percent: float
    memory_used_bytes: float
    memory_total_bytes: float
    gpus: tuple[Gpu, ...]

    @property
    def alive(self) -> bool:
        """Whether Ray counts on it."""
        return self.state == "ALIVE"


class ServeApi:
    """A client of one Ray dashboard; a context manager.

    Args:
        address: `http://host:port` of the dashboard.

    Raises:
        DashboardAuthError: Token authentication is asked for and there is no token.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._client = httpx.Client(headers=auth_headers(), timeout=60.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def details(self) -> ServeDetails:
        """Everything that is deployed.

        Raises:
            ServeApiError: A subclass says what is wrong.
        """
        return parse_details(self._request("GET", APPLICATIONS_PATH).json())

    def nodes(self) -> tuple[Node, ...]:
        """The nodes of Ray, the head first.

        Raises:
            ServeApiError: A subclass says what is wrong.
        """
        return parse_nodes(self._request("GET", NODES_PATH).json())

    def log_lines(self, node_id: str, file: str, lines: int) -> list[str]:
        """The last lines of a log file of a node.

        Raises:
            ServeApiError: A subclass says what is wrong.
        """
        query = urlencode({"node_id": node_id, "filename": file, "lines": lines})
        text = self._request("GET", f"{LOGS_PATH}/file?{query}", kind="text/plain").text
        return text.splitlines()

    @contextmanager
    def log_stream(self, node_id: str, file: str, lines: int) -> Iterator[Iterator[str]]:
        """The last lines of a log file of a node, and every line that comes behind them.

        Raises:
            ServeApiError: A subclass says what is wrong.
        """
        query = urlencode({"node_id": node_id, "filename": file, "lines": lines, "interval": 0.5})
        url = f"{self.address.rstrip('/')}{LOGS_PATH}/stream?{query}"
        timeout = httpx.Timeout(60.0, read=None)
        try:
            with self._client.stream("GET", url, timeout=timeout) as response:
                if response.is_error:
                    response.read()
                    raise ServeRequestError(f"{file}: {response.status_code} {_message(response)}")
                yield response.iter_lines()
        except httpx.TransportError as error:
            raise DashboardUnreachableError(
                f"the Ray dashboard at {self.address} is not reachable ({error})"
            ) from error

    def set_replicas(self, application: str, deployment: str, replicas: int) -> None:
        """Ask for a number of replicas; Serve answers at once and scales afterwards.

        Raises:
            ServeApiError: A subclass says what is wrong.
        """
        path = f"{quote(application, safe='')}/deployments/{quote(deployment, safe='')}/scale"
        self._request(
            "POST", f"/api/v1/applications/{path}", json={"target_num_replicas": replicas}
        )

    def deploy(self, config: Mapping[str, Any]) -> None:
        """Replace the whole config; applications that came from a config and miss here end.

        Raises:
            ServeApiError: A subclass says what is wrong.
        """
        self._request("PUT", APPLICATIONS_PATH, json=config)

    def _request(
        self, method: str, path: str, json: object = None, kind: str = "application/json"
    ) -> httpx.Response:
        try:
            response = self._client.request(method, f"{self.address.rstrip('/')}{path}", json=json)
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise DashboardUnreachableError(
                f"the Ray dashboard at {self.address} is not reachable ({error})"
            ) from error
        if response.status_code in (401, 403):
            raise DashboardAuthError(
                f"the Ray dashboard at {self.address} rejected the token ({response.text.strip()}):"
                " set RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH, or write it to ~/.ray/auth_token"
            )
        if response.is_error:
            raise ServeRequestError(f"{method} {path}: {response.status_code} {_message(response)}")
        if method == "GET" and kind not in response.headers.get("content-type", ""):
            raise DashboardUnreachableError(f"no Ray dashboard answers at {self.address}")
        return response


def auth_headers() -> dict[str, str]:
    """The header of Ray's token authentication, from the places where Ray looks for the token.

    In Ray's order: `RAY_AUTH_TOKEN`, the file `RAY_AUTH_TOKEN_PATH`, `~/.ray/auth_token`. A token
    that is there is sent even without `RAY_AUTH_MODE=token`, because a cluster turns
    authentication on by itself once the file exists.

    Raises:
        DashboardAuthError: A token is asked for and not found.
    """
    mode = os.environ.get("RAY_AUTH_MODE", "")
    if mode == "disabled":
        return {}
    token = os.environ.get("RAY_AUTH_TOKEN", "").strip()
    if not token:
        named = os.environ.get("RAY_AUTH_TOKEN_PATH")
        path = Path(named) if named else Path.home() / ".ray/auth_token"
        try:
            token = path.read_text().strip()
        except OSError as error:
            if named or mode == "token":
                raise DashboardAuthError(
                    f"no Ray token: {path}: {error.strerror}; set RAY_AUTH_TOKEN or "
                    "RAY_AUTH_TOKEN_PATH, or write it to ~/.ray/auth_token"
                ) from error
    return {"Authorization": f"Bearer {token}"} if token else {}


def parse_details(data: Mapping[str, Any]) -> ServeDetails:
    """Serve's `ServeInstanceDetails` as values."""
    return ServeDetails(
        applications={name: _application(app) for name, app in data["applications"].items()},
        options={key: data[key] for key in OPTIONS if data.get(key) is not None},
    )


def parse_nodes(data: Mapping[str, Any]) -> tuple[Node, ...]:
    """The dashboard's summary of the nodes as values."""
    nodes = [_node(summary) for summary in data["data"]["summary"]]
    return tuple(sorted(nodes, key=lambda node: (not node.is_head, node.hostname)))


def _node(data: Mapping[str, Any]) -> Node:
    raylet = data["raylet"]
    # Total, available, percent, used.
    memory = data.get("mem") or (0, 0, 0, 0)
    return Node(
        hostname=data.get("hostname") or raylet.get("nodeManagerHostname", "?"),
        is_head=bool(raylet.get("isHeadNode")),
        state=raylet.get("state", "?"),
        cores=(data.get("cpus") or (0, 0))[0],
        cpu_percent=data.get("cpu") or 0.0,
        memory_used_bytes=memory[3],
        memory_total_bytes=memory[0],
        gpus=tuple(
            Gpu(
                name=gpu["name"],
                utilization_percent=gpu.get("utilizationGpu") or 0.0,
                memory_used_bytes=2**20 * (gpu.get("memoryUsed") or 0),
                memory_total_bytes=2**20 * (gpu.get("memoryTotal") or 0),
            )
            for gpu in data.get("gpus") or ()
        ),
    )


def _application(data: Mapping[str, Any]) -> Application:
    return Application(
        name=data["name"],
        status=data["status"],
        message=data["message"],
        route_prefix=data.get("route_prefix"),
        external_scaler=data["external_scaler_enabled"],
        config=data.get("deployed_app_config"),
        deployments={name: _deployment(d) for name, d in data["deployments"].items()},
    )


def _deployment(data: Mapping[str, Any]) -> Deployment:
    autoscaling = data["deployment_config"].get("autoscaling_config")
    return Deployment(
        name=data["name"],
        status=data["status"],
        message=data["message"],
        target_replicas=data["target_num_replicas"],
        autoscaling=autoscaling
        and ReplicaRange(autoscaling["min_replicas"], autoscaling["max_replicas"]),
        replicas=tuple(
            Replica(
                r["replica_id"],
                r["state"],
                r.get("node_id"),
                r.get("pid"),
                (r.get("log_file_path") or "").lstrip("/") or None,
            )
            for r in data["replicas"]
        ),
    )


def _message(response: httpx.Response) -> str:
    """Serve's own words: `{"error": ...}`, or plain text."""
    try:
        return str(response.json()["error"])
    except (ValueError, KeyError, TypeError):
        return response.text.strip()
