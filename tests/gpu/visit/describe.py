"""describe.py MODEL...: what the replicas of a running cluster say of themselves, as JSON.

A process of its own: it joins the Ray that RAY_ADDRESS names.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from ray import serve

from cluster.naming import model_deployment_name
from profiling.trials.publish import connect_ray


async def describe(models: list[str]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for model in models:
        handle = serve.get_deployment_handle(model_deployment_name(model), model)
        found += await handle.broadcast("describe").results_async()
    return found


if __name__ == "__main__":
    connect_ray()
    print(json.dumps(asyncio.run(describe(sys.argv[1:]))))
