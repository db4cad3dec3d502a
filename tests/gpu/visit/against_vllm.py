"""What the router adds on this device: compared with vLLM's own server, the same model and engine.

The loads and their clients are those of `benchmarks/overhead.py`, which compares tiny models on a
CPU and with more peers; here the model is a real shape and the device is shared by all engines.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from statistics import median
from typing import Any

from gpu.visit.runner import Record
from gpu.visit.site import Site
from gpu.visit.steps import Visit
from loadgen import Load, Measurement, Target, measure
from servers import AS_IT_SHIPS, Server, free_port, running

from cluster.energy.nvml import inventory

OUTPUT_TOKENS = 64
VLLM, OURS = "vLLM alone", "pinned"
ROUNDS = 2


def vllm_options(args: Mapping[str, Any], memory: float | None) -> list[str]:
    """Command line of vLLM's own server for the engine of a model's `args`.

    Args:
        args: Of its application.
        memory: `gpu_memory_utilization`, where the YAML names none.
    """
    engine = dict(args["engine_kwargs"])
    if memory is not None:
        engine.setdefault("gpu_memory_utilization", memory)
    options = ["--model", str(args["source"]), "--served-model-name", str(args["model_id"])]
    for name, value in engine.items():
        option = f"--{name.replace('_', '-')}"
        if value is True:
            options.append(option)
        else:
            options += [option, json.dumps(value) if isinstance(value, dict) else str(value)]
    return options


def against_vllm(visit: Visit, record: Record) -> None:
    """Load both in turn, at every number of clients, streamed and not."""
    site = visit.up
    model = site.models[-1]
    with ExitStack() as stack:
        server = _vllm_server(site, model, visit, stack)
        server.wait_until_ready()
        targets = {VLLM: Target(server.url, model), OURS: Target(site.cluster.url, model)}
        loads = [
            Load(clients, tokens, stream=stream)
            for clients in visit.size.clients
            for tokens, stream in ((1, False), (OUTPUT_TOKENS, True))
        ]
        rows: list[dict[str, Any]] = []
        for load in loads:
            measured: dict[str, list[Measurement]] = {name: [] for name in targets}
            for turn in range(ROUNDS):
                for name in targets if turn % 2 else reversed(targets):
                    seconds = visit.size.load_s
                    measured[name].append(
                        asyncio.run(measure(targets[name], load, seconds, f"{turn} {name}"))
                    )
            rows.append(_row(load, measured))
            record.keep(model=model, loads=rows)


def _vllm_server(site: Site, model: str, visit: Visit, stack: ExitStack) -> Server:
    args = site.args(model)
    port = free_port()
    memory = None if site.layout.rehearsal else 0.9 * min(site.layout.share, 0.25)
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--disable-uvicorn-access-log"]
    log = visit.out / "vllm.log"
    environment = {**AS_IT_SHIPS, "HF_HUB_OFFLINE": "1", **_device_of(site, model)}
    process = stack.enter_context(
        running([*command, *vllm_options(args, memory)], log, environment)
    )
    # It answers no signal while it imports, and the visit has no time to wait for it.
    stack.callback(_kill_group, process)
    return Server("vLLM's own server", f"http://127.0.0.1:{port}", process, log)


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _device_of(site: Site, model: str) -> dict[str, str]:
    """The GPU of the model's replica for another process; nothing in a rehearsal."""
    device = next(r["device"] for r in site.describe() if r["model"] == model)
    indices = [str(gpu.index) for gpu in inventory() if gpu.uuid == device]
    return {"CUDA_VISIBLE_DEVICES": indices[0]} if indices else {}


def _row(load: Load, measured: Mapping[str, list[Measurement]]) -> dict[str, Any]:
    def figures(of: list[Measurement]) -> dict[str, float]:
        return {
            "p50_ms": 1000 * median(m.runtime_p50_s for m in of),
            "ttft_p50_ms": 1000 * median(m.ttft_p50_s for m in of),
            "requests_per_s": median(m.requests_per_s for m in of),
            "tokens_per_s": median(m.tokens_per_s for m in of),
        }

    alone, ours = figures(measured[VLLM]), figures(measured[OURS])
    return {
        "load": str(load),
        "streamed": load.stream,
        "clients": load.clients,
        VLLM: alone,
        OURS: ours,
        "added_p50_ms": ours["p50_ms"] - alone["p50_ms"],
        "requests_per_s_over_vllm": ours["requests_per_s"] / alone["requests_per_s"],
    }
