"""One look at the cluster over HTTP: Serve's applications, Ray's nodes, the router's live view.

Values and the calls that fetch them; `cluster.cli.screen` draws them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx

from cluster.naming import application_name
from cluster.serve_api import Node, ServeApi, ServeApiError, ServeDetails

KEY_VARIABLE = "OPENAI_API_KEY"
LIVE_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class ModelLoad:
    """One model, by the router's word.

    Attributes:
        reason: Why no request can go there, `None` if one can.
        ongoing: Running and waiting requests.
        slots: Requests that one replica runs side by side, `None` where unknown.
        drift: What the profile's predicted seconds are multiplied with at present.
        tokens_per_s: Prompt and generated tokens, of all replicas.
        power_watts: Of its share of the devices, lately.
        accelerators: Kinds of device of its replicas.
    """

    reason: str | None
    ongoing: float
    slots: int | None
    drift: float
    tokens_per_s: float
    power_watts: float
    accelerators: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Overview:
    """The cluster at one moment.

    Attributes:
        serve: Applications, and the options of Serve.
        nodes: Of Ray; empty where `faults` says why.
        loads: By model; empty likewise.
        routers: Routers that take requests.
        address: Of the router.
        faults: What could not be looked at, in words.
    """

    serve: ServeDetails
    nodes: tuple[Node, ...]
    loads: Mapping[str, ModelLoad]
    routers: int
    address: str
    faults: tuple[str, ...]

    def load_of(self, application: str) -> ModelLoad | None:
        """The load of an application's model, `None` where nothing is known of it."""
        found = (
            load for model, load in self.loads.items() if application_name(model) == application
        )
        return next(found, None)


def look(api: ServeApi) -> Overview:
    """Look now.

    Raises:
        ServeApiError: Not even the applications can be seen.
    """
    serve = api.details()
    faults: list[str] = []
    nodes: tuple[Node, ...] = ()
    try:
        nodes = api.nodes()
    except ServeApiError as error:
        faults.append(f"nodes: {error}")
    address = router_address(serve, api.address)
    loads: Mapping[str, ModelLoad] = {}
    routers = 0
    if "router" in serve.applications:
        try:
            view = _live_view(address)
            loads, routers = parse_loads(view), int(view["routers"])
        except (httpx.HTTPError, LookupError, TypeError, ValueError) as error:
            faults.append(f"load: {address}/v1/live: {_reason(error)}")
    return Overview(serve, nodes, loads, routers, address, tuple(faults))


def router_address(serve: ServeDetails, dashboard: str) -> str:
    """Where the router takes requests; on the dashboard's host where Serve listens everywhere."""
    options = serve.options.get("http_options") or {}
    host = options.get("host") or "127.0.0.1"
    if host in ("0.0.0.0", "::"):
        host = urlsplit(dashboard).hostname or "127.0.0.1"
    return f"http://{f'[{host}]' if ':' in host else host}:{options.get('port', 8000)}"


def parse_loads(view: Mapping[str, Any]) -> dict[str, ModelLoad]:
    """The answer of `/v1/live`.

    Raises:
        LookupError, TypeError: It is something else.
    """
    loads = {}
    for row in view["models"]:
        replicas = [r for r in view["replicas"] if r["model"] == row["model"]]
        loads[row["model"]] = ModelLoad(
            reason=row["reason"],
            ongoing=row["ongoing"],
            slots=row["slots"],
            drift=row["drift"]["runtime"]["factor"],
            tokens_per_s=sum(r["tokens_per_s"] for r in replicas),
            power_watts=sum(r["power_watts"] for r in replicas),
            accelerators=tuple(sorted({r["accelerator"] for r in replicas})),
        )
    return loads


def _live_view(address: str) -> dict[str, Any]:
    key = os.environ.get(KEY_VARIABLE)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    # Decisions are none of our business here: none are asked for.
    response = httpx.get(
        f"{address}/v1/live?since=9999999999", headers=headers, timeout=LIVE_TIMEOUT_S
    )
    view: dict[str, Any] = response.raise_for_status().json()
    return view


def _reason(error: Exception) -> str:
    if isinstance(error, httpx.HTTPStatusError) and error.response.status_code == 401:
        return f"wants an API key: set {KEY_VARIABLE}"
    if isinstance(error, httpx.HTTPStatusError):
        return str(error.response.status_code)
    return str(error) or type(error).__name__
