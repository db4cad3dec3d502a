"""What Serve runs for a model: waits for its turn, then becomes a `ModelServer`.

Serve imports this file wherever a model's application is built and in every replica. vLLM, which
takes ten seconds of a core to import, is not imported here: an application is built without it, and
a replica loads it when its turn has come.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from ray.serve._private.common import RUNNING_REQUESTS_KEY

from deployments.links.frames import Frame, ModelRequest, Reply
from deployments.links.tokenizer_bundle import TokenizerBundle
from deployments.replica.admission import ReplicaLimits
from deployments.replica.startup.forking import start_template_process
from deployments.replica.startup.log_files import log_files_kept
from deployments.replica.startup.turns import Rank, start_turn
from deployments.replica.startup.weights import weight_bytes

if TYPE_CHECKING:
    from deployments.replica.server import ModelServer


class ModelReplica:
    """Serves one model from one replica of vLLM.

    Args:
        settings: Ray's configuration of the model: the arguments of its `LLMConfig`.
        start_order: Among the engines of this node, see `deployments.replica.startup.turns`.
        limits: Of what it takes and how long it may be silent.
        options: More of `ModelServer`'s arguments.

    Raises:
        FileNotFoundError: The source is a folder that is not there, or has no weights.
    """

    # Serve awaits it.
    async def __init__(  # type: ignore[misc]
        self,
        settings: Mapping[str, Any],
        *,
        start_order: int | None,
        limits: ReplicaLimits,
        **options: Any,
    ) -> None:
        loading = settings["model_loading_config"]
        load_format = str(settings["engine_kwargs"].get("load_format", "auto"))
        size = weight_bytes(loading["model_source"], load_format)
        async with start_turn(Rank(start_order, size, loading["model_id"])):
            # On one core, while this process does the same on another one.
            start_template_process(settings)
            server_cls, llm_config, engine_cls = await asyncio.to_thread(_load, settings)
            self._server: ModelServer = await server_cls.open(
                llm_config, engine_cls=engine_cls, limits=limits, **options
            )

    async def check_health(self) -> None:
        """See `ModelServer`."""
        await self._server.check_health()

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Called by Serve, several times a second, where its autoscaler decides on this model.

        Under the name that Serve has for what it counted itself, which are calls through its
        handles: in their place it gets those over links too. It leaves out what its handles say
        where replicas say something [Ray 2.60, `DeploymentAutoscalingState`].
        """
        return {RUNNING_REQUESTS_KEY: float(self._server.ongoing)}

    async def describe(self, target: str | None = None) -> dict[str, Any]:
        """See `ModelServer`."""
        return await self._server.describe(target)

    async def tokenizer(self, target: str | None = None) -> TokenizerBundle:
        """See `ModelServer`."""
        return await self._server.tokenizer(target)

    async def answer(self, request: ModelRequest, **placement: object) -> Reply:
        """See `ModelServer`."""
        return await self._server.answer(request, **placement)

    async def stream(self, request: ModelRequest, **placement: object) -> AsyncGenerator[Frame]:
        """See `ModelServer`."""
        async with aclosing(self._server.stream(request, **placement)) as frames:
            async for frame in frames:
                yield frame

    def stopped(self, request_id: str) -> bytes:
        """See `ModelServer`."""
        return self._server.stopped(request_id)

    async def __del__(self) -> None:
        """Called by Serve, once; there is nothing to end where the start failed."""
        server = getattr(self, "_server", None)
        if server is not None:
            await server.close()


def _load(settings: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    """Import what a replica needs, in seconds, and make Ray's configuration of the model.

    Raises:
        ValueError: vLLM or Ray do not take the configuration.
    """
    with log_files_kept(logging.getLogger("ray.serve")):
        from ray.serve.llm import LLMConfig  # noqa: PLC0415

        from deployments.replica.engine.engine import FrameEngine  # noqa: PLC0415
        from deployments.replica.server import ModelServer  # noqa: PLC0415

    return ModelServer, LLMConfig(**settings), FrameEngine
