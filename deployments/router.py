"""The ingress: OpenAI's API in, a decision, the answer of the chosen model out.

HTTP handlers only. Deciding is `scheduler`, knowing the models is `directory`, talking to them is
`dispatch`, wire formats are `openai_api`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import orjson
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cluster.telemetry import REPORT_PERIOD_S
from deployments.auth import API_KEYS_VARIABLE, AccessGuard, is_loopback, parse_keys
from deployments.binding import serve_host
from deployments.closing_stream import ClosingStream
from deployments.config import RouterArgs, RouterConfig, describe_errors
from deployments.deciding import AUTO, Decider
from deployments.decision_log import DecisionLog
from deployments.directory import SCALED_TO_ZERO, ModelDirectory
from deployments.dispatch import Dispatch
from deployments.error_responses import EXCEPTION_HANDLERS, as_api_error
from deployments.frames import Flag, Frame, with_member
from deployments.openai_api import ApiError, Endpoint, ParsedRequest, parse_request
from deployments.probing import Prober
from deployments.profile_source import ProfileSource
from deployments.routing_report import decision_record, routing_object
from deployments.shared_state import SharedState
from scheduler.serialization import decision_to_dict
from scheduler.types import Decision, Observation

logger = logging.getLogger("ray.serve")

DIRECTORY_PERIOD_S = 1.0
STORE_PERIOD_S = 5.0
LESSON_PERIOD_S = 1.0
PROBE_PERIOD_S = 5.0


class Router:
    """One replica of the router.

    Args:
        args: What a restart is needed for; the rest comes through `reconfigure`.
    """

    # Serve awaits it; the background tasks need the running loop.
    async def __init__(self, args: RouterArgs) -> None:  # type: ignore[misc]
        self._args = args
        self._config_fault: str | None = None
        self._directory = ModelDirectory()
        self._profiles = ProfileSource(args.data_dir)
        self._log = DecisionLog()
        self._shared = SharedState(uuid.uuid4().hex[:12])
        self._decider = Decider(self._directory, self._profiles, self._shared)
        self._prober = Prober(self._decider, self._directory, self._shared)
        self._started = int(time.time())
        self._tasks = [
            asyncio.create_task(self._repeat(DIRECTORY_PERIOD_S, self._directory.refresh)),
            asyncio.create_task(self._repeat(STORE_PERIOD_S, self.refresh)),
            asyncio.create_task(self._repeat(DIRECTORY_PERIOD_S, self._flush_log)),
            asyncio.create_task(self._repeat(REPORT_PERIOD_S, self._refresh_loads)),
            asyncio.create_task(self._repeat(LESSON_PERIOD_S, self._exchange_lessons)),
            asyncio.create_task(self._repeat(PROBE_PERIOD_S, self._probe)),
        ]

    def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Take in the `user_config` of the YAML; a wrong one changes nothing and shows in /health.

        Never raises: Serve would replace the replica.
        """
        try:
            config = RouterConfig.model_validate(user_config)
            self._profiles.set_prior(config.prior_profiles)
        except ValidationError as error:
            self._config_fault = f"user_config: {describe_errors(error)}"
        except ValueError as error:
            self._config_fault = f"user_config: {error}"
        else:
            self._decider.config, self._config_fault = config, None
            self._directory.configure([model.id for model in config.models])
        if self._config_fault:
            logger.error("the configuration of before stays in use: %s", self._config_fault)

    async def refresh(self) -> str:
        """Fetch profiles and trials from the store now; called by the store's publishers.

        Returns:
            The version of the profiles in use.
        """
        try:
            await self._profiles.refresh()
        finally:
            self._directory.set_trials(self._profiles.trials)
            for entry in self._directory.entries():
                if self._profiles.current.find(entry.model) is None:
                    self._profiles.warn_unprofiled(entry.model)
        return self._profiles.current.version

    async def profiles(self) -> str:
        """The profiles in use, as JSON text; for the profiling job."""
        return self._profiles.current.to_json()

    async def models(self) -> list[str]:
        """Ids of all configured models; for the profiling job."""
        return [entry.model for entry in self._directory.entries()]

    def __serve_build_asgi_app__(self) -> Starlette:
        """The ASGI application that Serve runs for this replica."""
        keys = parse_keys(os.environ.get(API_KEYS_VARIABLE, ""))
        host = serve_host()
        if not keys and not is_loopback(host):
            logger.error(
                "listening on %s without API keys: every route but /health answers 403", host
            )
        routes = [
            Route("/v1/chat/completions", self._chat, methods=["POST"]),
            Route("/v1/completions", self._completions, methods=["POST"]),
            Route("/v1/route", self._dry_run, methods=["POST"]),
            Route("/v1/models", self._list_models),
            Route("/v1/models/{model:path}", self._get_model),
            Route("/v1/decisions", self._list_decisions),
            Route("/v1/decisions/{decision_id}", self._get_decision),
            Route("/v1/profiles", self._get_profiles),
            Route("/health", self._health),
        ]
        return Starlette(
            routes=routes,
            middleware=[Middleware(AccessGuard, keys=keys, host=host)],
            exception_handlers=EXCEPTION_HANDLERS,
        )

    # Completions

    async def _chat(self, request: Request) -> Response:
        return await self._complete(request, "chat")

    async def _completions(self, request: Request) -> Response:
        return await self._complete(request, "completions")

    async def _complete(self, request: Request, endpoint: Endpoint) -> Response:
        body = await self._body(request)
        parsed = parse_request(body, endpoint)
        decision = self._decider.decide(parsed)
        dispatch = Dispatch(
            entry=self._directory[decision.model],
            endpoint=endpoint,
            body=body,
            request_id=decision.decision_id,
            timeout_s=self._args.request_timeout_s,
            origin=self._shared.loads.router_id,
        )
        headers = {"x-routed-model": decision.model, "x-decision-id": decision.decision_id}
        self._decider.decisions += 1
        if parsed.stream:
            frames = dispatch.frames()
            # The status line waits for the first frame, so that a refusal keeps its status.
            first = await self._first(frames, decision)
            return ClosingStream(
                self._stream(first, frames, dispatch, decision, parsed),
                source=frames,
                media_type="text/event-stream",
                headers=headers,
            )
        try:
            data = await dispatch.answer()
        except BaseException as error:
            self._log_failure(decision, error)
            raise
        self._finish(decision, dispatch.observation, parsed)
        report = routing_object(decision, dispatch.observation)
        data = with_member(data, b"routing", orjson.dumps(report))
        return Response(data, headers=headers, media_type="application/json")

    async def _first(self, frames: AsyncGenerator[Frame], decision: Decision) -> Frame:
        try:
            return await anext(frames)
        except BaseException as error:
            self._log_failure(decision, error)
            raise

    async def _stream(
        self,
        first: Frame,
        frames: AsyncGenerator[Frame],
        dispatch: Dispatch,
        decision: Decision,
        parsed: ParsedRequest,
    ) -> AsyncGenerator[bytes]:
        reported_in = Flag.USAGE if parsed.include_usage else Flag.FINISH
        data, _, flags = first
        try:
            while True:
                if flags & reported_in:
                    report = routing_object(decision, dispatch.observation)
                    data = with_member(data, b"routing", orjson.dumps(report))
                yield data
                data, _, flags = await anext(frames)
        except StopAsyncIteration:
            self._finish(decision, dispatch.observation, parsed)
        except Exception as error:
            # The answer is cut: an error event and no end marker, so that it cannot look whole.
            self._log_failure(decision, error, dispatch.observation)
            yield b"data: " + as_api_error(error).body() + b"\n\n"
        except BaseException as error:
            if flags & Flag.DONE:
                # Many clients hang up on the end marker.
                self._finish(decision, dispatch.observation, parsed)
            else:
                self._log_failure(decision, error, dispatch.observation)
            raise

    def _finish(
        self, decision: Decision, observation: Observation | None, parsed: ParsedRequest
    ) -> None:
        self._log.add(decision_record(decision, observation))
        self._decider.learn(parsed, decision, observation)

    def _log_failure(
        self, decision: Decision, error: BaseException, observation: Observation | None = None
    ) -> None:
        if isinstance(error, ApiError):
            text = str(error)
        elif isinstance(error, Exception):
            text = str(as_api_error(error))
            logger.error("request %s failed", decision.decision_id, exc_info=error)
        else:
            text = "the client went away"
        self._log.add(decision_record(decision, observation, error=text))

    async def _body(self, request: Request) -> bytes:
        limit = self._args.max_body_bytes
        parts: list[bytes] = []
        size = 0
        async for part in request.stream():
            size += len(part)
            if size > limit:
                raise ApiError(413, f"the body is larger than {limit} bytes", code="body_too_large")
            parts.append(part)
        return b"".join(parts)

    # Looking

    async def _dry_run(self, request: Request) -> Response:
        parsed = parse_request(await self._body(request), None)
        return _json(decision_to_dict(self._decider.decide(parsed)))

    async def _list_models(self, _: Request) -> Response:
        names = [AUTO, *(entry.model for entry in self._directory.entries())]
        return _json({"object": "list", "data": [self._model_card(name) for name in names]})

    async def _get_model(self, request: Request) -> Response:
        name = request.path_params["model"]
        if name != AUTO and name not in self._directory:
            raise self._decider.unknown_model(name)
        return _json(self._model_card(name))

    def _model_card(self, name: str) -> dict[str, Any]:
        card = {
            "id": name,
            "object": "model",
            "created": self._started,
            "owned_by": "dynamic-llm-scheduler",
        }
        if name != AUTO:
            description = self._directory[name].description or {}
            card["max_model_len"] = description.get("max_model_len")
        return card

    async def _list_decisions(self, request: Request) -> Response:
        text = request.query_params.get("limit", "100")
        if not text.isdecimal() or len(text) > 5 or not 1 <= int(text) <= 10_000:
            raise ApiError(400, f"limit: must be 1..10000, got {text!r}", param="limit")
        records = await self._profiles.decisions(int(text), self._log.recent())
        return _json({"object": "list", "data": records})

    async def _get_decision(self, request: Request) -> Response:
        decision_id = request.path_params["decision_id"]
        record = await self._profiles.decision(decision_id, self._log.recent())
        if record is None:
            raise ApiError(404, f"no decision {decision_id!r} is kept", code="decision_not_found")
        return _json(record)

    async def _get_profiles(self, _: Request) -> Response:
        return Response(self._profiles.current.to_json(), media_type="application/json")

    async def _health(self, _: Request) -> Response:
        found = (self._config_fault, *self._profiles.faults(), *self._shared.loads.faults)
        faults = [fault for fault in found if fault]
        states = self._decider.state().models
        models = {
            state.model: {
                "available": state.unavailable is None,
                "reason": state.unavailable,
                "replicas": state.replicas,
                "ongoing": state.ongoing,
                "profile": self._profiles.origin(state.model),
            }
            for state in states
        }
        # Whoever scaled a model to 0 knows that it is away.
        away = [m for m in models.values() if m["reason"] not in (None, SCALED_TO_ZERO)]
        return _json(
            {
                "status": "degraded" if faults or away else "ok",
                "models": models,
                "profile_version": self._profiles.current.version,
                "faults": faults,
            }
        )

    # Background

    async def _flush_log(self) -> None:
        await self._log.flush(self._profiles.store)

    async def _refresh_loads(self) -> None:
        await self._shared.refresh_loads(self._profiles.store, self._directory.ongoing)

    async def _probe(self) -> None:
        await self._prober.probe(PROBE_PERIOD_S)

    async def _exchange_lessons(self) -> None:
        await self._shared.exchange_lessons(self._profiles.store)

    async def _repeat(self, period_s: float, action: Callable[[], Awaitable[object]]) -> None:
        failing = False
        while True:
            try:
                await action()
                failing = False
            except Exception:
                # Whatever failed is tried again; a router goes on with what it has.
                if not failing:
                    logger.warning("%s fails", action.__qualname__, exc_info=True)
                failing = True
            await asyncio.sleep(period_s)


def _json(value: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(value), status, media_type="application/json")
