"""What it costs a request that Serve scales its model: the same model twice, fixed and autoscaled.

    python benchmarks/autoscaled.py [--requests N] [--rounds N]

Both have one replica of a tiny random model behind one router of ours, and are asked by name for
answers of eight tokens that are not streamed, in blocks that take turns. Autoscaled means
`scaling: {mode: auto}` with 1 to 2 replicas and a target that this load does not reach. Medians of
all requests; the difference is the median over the rounds of that of their medians, with the least
and the most.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
from overhead import MODEL, checkpoint_folder
from rich import box
from rich.console import Console
from rich.table import Table
from servers import free_port, instance, serve_config

FIXED, AUTOSCALED = "fixed", "autoscaled"
CLIENTS = (1, 8)
TOKENS = 8
WARM_UP = 50
BUSY = 1000
"""Requests a replica that would start another one: more than there are."""


def config(checkpoint: Path, folder: Path) -> dict[str, Any]:
    """A router and the two models."""
    whole = serve_config(FIXED, checkpoint, folder)
    router, fixed = whole["applications"]
    scaling = {
        "mode": "auto",
        "min_replicas": 1,
        "max_replicas": 2,
        "target_ongoing_requests": BUSY,
    }
    arguments = {**fixed["args"], "model_id": AUTOSCALED, "scaling": scaling}
    models = router["deployments"][0]["user_config"]["models"]
    models.append({"id": AUTOSCALED})
    whole["applications"].append({**fixed, "name": AUTOSCALED, "args": arguments})
    return whole


async def ask(url: str, model: str, requests: int, clients: int) -> list[float]:
    """Milliseconds of each answer; the clients share the requests.

    Raises:
        httpx.HTTPStatusError: One was refused.
    """
    body = {"model": model, "prompt": "Hi", "max_tokens": TOKENS, "ignore_eos": True}
    took: list[float] = []

    async def one() -> None:
        async with httpx.AsyncClient(base_url=url, timeout=60.0) as client:
            for _ in range(requests // clients):
                began = time.perf_counter()
                answer = await client.post("/v1/completions", json=body)
                took.append((time.perf_counter() - began) * 1e3)
                answer.raise_for_status()

    await asyncio.gather(*(one() for _ in range(clients)))
    return took


def measure(
    url: str, clients: int, requests: int, rounds: int
) -> tuple[dict[str, float], list[float]]:
    """The median of each model, and the differences of the rounds, in milliseconds."""
    all_ms: dict[str, list[float]] = {FIXED: [], AUTOSCALED: []}
    differences = []
    for turn in range(rounds):
        order = (FIXED, AUTOSCALED) if turn % 2 else (AUTOSCALED, FIXED)
        ms = {model: asyncio.run(ask(url, model, requests, clients)) for model in order}
        for model, of_round in ms.items():
            all_ms[model] += of_round
        differences.append(statistics.median(ms[AUTOSCALED]) - statistics.median(ms[FIXED]))
    return {model: statistics.median(of) for model, of in all_ms.items()}, differences


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--requests", type=int, default=160, help="of a round, for each model")
    parser.add_argument("--rounds", type=int, default=12)
    args = parser.parse_args()
    table = Table("clients", FIXED, AUTOSCALED, "added: median", "least", "most", box=box.SIMPLE)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="autoscaled-")))
        server = stack.enter_context(
            instance(config(checkpoint_folder(), folder), folder, free_port())
        )
        server.wait_until_ready()
        for model in (FIXED, AUTOSCALED):
            asyncio.run(ask(server.url, model, WARM_UP, 1))
        for clients in CLIENTS:
            medians, differences = measure(server.url, clients, args.requests, args.rounds)
            figures = (
                medians[FIXED],
                medians[AUTOSCALED],
                statistics.median(differences),
                min(differences),
                max(differences),
            )
            table.add_row(str(clients), *(f"{figure:.2f} ms" for figure in figures))
    Console().print(f"{MODEL}, {TOKENS} tokens an answer, {args.rounds} rounds", table)


if __name__ == "__main__":
    main()
