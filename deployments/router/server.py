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
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from cluster.serve_flags import slow_start
from deployments.config.app import RouterArgs, RouterConfig
from deployments.config.base import describe_errors
from deployments.router.access.auth import API_KEYS_VARIABLE, AccessGuard, is_loopback
from deployments.router.access.binding import serve_host
from deployments.router.access.budgets import Budgets
from deployments.router.access.idempotency import Idempotency
from deployments.router.access.keys import KeyRing, read_keys
from deployments.router.decision.decide import Decider
from deployments.router.decision.query import Query
from deployments.router.edge.descriptors import Descriptors, raise_limit
from deployments.router.edge.doors import Doors
from deployments.router.edge.garbage import collect_rarely
from deployments.router.edge.middleware import answer_early
from deployments.router.endpoints.completions import Completions, caller_of
from deployments.router.endpoints.decisions import DecisionRecords
from deployments.router.endpoints.dialects import (
    AnthropicErrors,
    MessagesRoute,
    ResponsesRoute,
    TokenCountRoute,
)
from deployments.router.endpoints.feedback.route import feedback_route
from deployments.router.endpoints.health import Health
from deployments.router.endpoints.live import live_view
from deployments.router.endpoints.model_cards import ModelCards
from deployments.router.endpoints.openapi import document
from deployments.router.endpoints.page import page_routes
from deployments.router.endpoints.tokenize import Tokenize
from deployments.router.models import SCALED_TO_ZERO, ModelDirectory
from deployments.router.observe.instruments import Instruments
from deployments.router.observe.metrics import RequestMetrics
from deployments.router.probing import Prober
from deployments.router.sync.decision_log import DecisionLog
from deployments.router.sync.evidence import SharedEvidence
from deployments.router.sync.profiles import ProfileSource
from deployments.router.sync.serving import Serving
from deployments.router.sync.shared import SharedState
from deployments.router.sync.store_sync import StoreSync
from deployments.router.tokenizers import TokenizerSource
from deployments.router.tokens.counting import TokenCounter
from deployments.router.wire.body import read_body
from deployments.router.wire.errors import EXCEPTION_HANDLERS
from deployments.router.wire.limits.body import parse_bounded
from deployments.router.wire.paths import ENDPOINTS
from deployments.router.wire.respond import JsonResponse
from scheduler.serialization import decision_to_dict

logger = logging.getLogger("ray.serve")

DIRECTORY_PERIOD_S = 1.0
STORE_PERIOD_S = 5.0
PROBE_PERIOD_S = 5.0
METRICS_PERIOD_S = 1.0
FIRST_LOOK_TIMEOUT_S = 5.0
"""A router that finds no store, say, goes without."""


class Router:
    """One replica of the router.

    Args:
        args: What a restart is needed for; the rest comes through `reconfigure`.

    Attributes:
        directory, shared, decider, budgets, idempotency, prober: Its parts.
    """

    # Serve awaits it; the background tasks need the running loop.
    async def __init__(self, args: RouterArgs) -> None:  # type: ignore[misc]
        self._args = args
        self._config_fault: str | None = None
        self.directory = ModelDirectory()
        self._profiles = ProfileSource(args.data_dir)
        self._log = DecisionLog(args.retention, keep_content=args.record_content)
        self.shared = SharedState(uuid.uuid4().hex[:12])
        self._counter = TokenCounter()
        self._tokenizers = TokenizerSource(self._counter)
        self.decider = Decider(self.directory, self._profiles, self.shared, self._counter)
        self.decider.timeout_s = args.request_timeout_s
        self.prober = Prober(self.decider, self.directory, self.shared)
        self.idempotency = Idempotency(
            self.shared.loads.router_id,
            lambda: self._profiles.store,
            args.idempotency_max_bytes,
            args.request_timeout_s,
            args.stalled_client_s,
        )
        self._keys: KeyRing | None = None
        self.budgets = Budgets()
        self._serving = Serving(lambda: self._sync.topics is not None)
        self.directory.applications = self._serving.applications
        self._sync = StoreSync(
            self.shared.loads.router_id,
            lambda: self._profiles.store,
            (
                self._log,
                self._serving,
                self.shared.lessons,
                *self.decider.shared(),
                self.budgets,
                self.idempotency,
                SharedEvidence(self.directory.blame, self.shared.loads.router_id),
            ),
            self._take_news,
        )
        self._metrics = RequestMetrics()
        self._looked = False
        self._started = int(time.time())
        slow = slow_start(os.environ)
        self._start_warnings = [slow] if slow else []
        self._config_warnings: list[str] = []
        for warning in self._start_warnings:
            logger.warning(warning)
        self._tasks = [
            asyncio.create_task(self._repeat(DIRECTORY_PERIOD_S, self.directory.refresh)),
            asyncio.create_task(self._repeat(STORE_PERIOD_S, self._keep_profiles)),
            asyncio.create_task(self._sync.run()),
            asyncio.create_task(self._repeat(PROBE_PERIOD_S, self._probe)),
            asyncio.create_task(self._repeat(DIRECTORY_PERIOD_S, self._fetch_tokenizers)),
            asyncio.create_task(self._repeat(METRICS_PERIOD_S, self._publish_metrics)),
        ]

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Take in the `user_config` of the YAML; a wrong one changes nothing and shows in /health.

        Never raises: Serve would replace the replica. The first time it returns once the router has
        looked at its models, because Serve sends requests from then on.
        """
        self._configure(user_config)
        if not self._looked:
            self._looked = True
            await self._look()

    async def _look(self) -> None:
        """At models, profiles and loads; whatever fails is tried again in the background."""
        actions = (self.directory.refresh, self.refresh, self._sync.news.ask)
        with suppress(TimeoutError):
            async with asyncio.timeout(FIRST_LOOK_TIMEOUT_S):
                await asyncio.gather(*(action() for action in actions), return_exceptions=True)

    def _configure(self, user_config: dict[str, Any]) -> None:
        try:
            config = RouterConfig.model_validate(user_config)
            self._profiles.set_prior(config.prior_profiles)
            self.decider.config = config
        except ValidationError as error:
            self._config_fault = f"user_config: {describe_errors(error)}"
        except ValueError as error:
            self._config_fault = f"user_config: {error}"
        else:
            self._config_fault = None
            self.directory.configure([model.id for model in config.models])
            self._metrics.grid = self.directory.grid
            self.directory.blame.book.memory_s = config.blame_memory_s
            self._look_for_warnings()
        if self._config_fault:
            logger.error("the previous configuration stays in use: %s", self._config_fault)

    def _look_for_warnings(self) -> None:
        known, names = self._config_warnings, None if self._keys is None else self._keys.names
        advisors = self.decider.advisors
        self._config_warnings = [text for advisor in advisors for text in advisor.warnings(names)]
        for warning in self._config_warnings:
            if warning not in known:
                logger.warning(warning)

    async def refresh(self) -> str:
        """Fetch profiles and trials from the store now; called by the store's publishers.

        Returns:
            The version of the profiles in use.
        """
        try:
            await self._profiles.refresh()
            await self.decider.exchange(self._profiles.store)
        finally:
            self._use_profiles()
        return self._profiles.current.version

    async def _keep_profiles(self) -> None:
        """The same, where the board's news does not say that all is as before."""
        topics = self._sync.topics
        if topics is None or self._profiles.is_stale(topics):
            await self.refresh()
        else:
            self._use_profiles()

    def _use_profiles(self) -> None:
        self.directory.set_trials(self._profiles.trials)
        self._profiles.hear_descriptions(self.directory.descriptions())
        for entry in self.directory.entries():
            if entry.generates and self._profiles.current.find(entry.model) is None:
                self._profiles.warn_unprofiled(entry.model)

    async def profiles(self) -> str:
        """The profiles in use, as JSON text; for the profiling job."""
        return self._profiles.current.to_json()

    async def models(self) -> list[str]:
        """Ids of all configured models; for the profiling job."""
        return [entry.model for entry in self.directory.entries()]

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """The ASGI application that Serve runs for this replica.

        Raises:
            KeyFileError: The keys cannot be read; a router without them would let everybody in.
        """
        variable = os.environ.get(API_KEYS_VARIABLE, "")
        self._keys = keys = KeyRing(read_keys(self._args.keys_file, variable))
        self.budgets.keyed = bool(keys)
        self._look_for_warnings()
        host = serve_host()
        if not keys and not is_loopback(host):
            logger.error("listening on %s without API keys: the API answers 403", host)
        completions = Completions(
            self._args, self.decider, self._log, self.idempotency, Instruments(self._metrics)
        )
        feedback = feedback_route(
            self._args, self.decider, self._log, self._profiles, self._exchange_advice
        )
        doors = self._args, self.decider, completions
        responses = ResponsesRoute(*doors, self._log, self._profiles)
        tokenize = Tokenize(self._args, self.decider, self._counter)
        models = ModelCards(self.decider, self._started)
        decisions = DecisionRecords(self._log, self._profiles)
        counting = TokenCountRoute(self._args, self.decider)
        routes = [
            *(Route(path, completions, methods=["POST"]) for path in ENDPOINTS),
            Route("/v1/messages", MessagesRoute(*doors), methods=["POST"]),
            Route("/v1/messages/count_tokens", counting.answer, methods=["POST"]),
            Route("/v1/responses", responses, methods=["POST"]),
            Route("/tokenize", tokenize.encode, methods=["POST"]),
            Route("/detokenize", tokenize.decode, methods=["POST"]),
            Route("/v1/route", self._dry_run, methods=["POST"]),
            Route("/v1/feedback", feedback, methods=["POST"]),
            Route("/v1/models", models.list_all),
            Route("/v1/models/{model:path}", models.get),
            Route("/v1/decisions", decisions.list_latest),
            Route("/v1/decisions/{decision_id}", decisions.get),
            Route("/v1/profiles", self._get_profiles),
            Route("/v1/live", live_view(self.decider, self._profiles, self.shared, self._log)),
            # GET and HEAD never come here; other methods get their 405.
            Route("/health", self._openapi),
            Route("/health/live", self._openapi),
            Route("/health/ready", self._openapi),
            Route("/openapi.json", self._openapi),
            *page_routes(),
        ]
        others = Starlette(routes=routes, exception_handlers=EXCEPTION_HANDLERS)
        # They would lead to where the client's Host header says.
        others.router.redirect_slashes = False

        health = Health(self._health, lambda: self.directory.why_none(self.decider.waker.models))
        answer_early(health.answer)

        raise_limit()
        collect_rarely()
        descriptors = Descriptors()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            # Past the framework, which costs more than the decision does.
            fast = scope["type"] == "http" and scope["path"] in ENDPOINTS
            chosen = completions if fast and scope["method"] == "POST" else others
            if chosen is completions and (refused := descriptors.refusal()):
                await refused.send(send)
                return
            await chosen(scope, receive, send)

        guard = AccessGuard(
            app,
            keys=keys,
            host=host,
            budgets=self.budgets,
            header_bytes=lambda: self.decider.config.limits.header_bytes,
        )
        guard.on_refusal = self._metrics.refused
        return Doors(
            health.before(AnthropicErrors(guard)), lambda: self.decider.config.cors_origins
        )

    # Looking

    async def _dry_run(self, request: Request) -> Response:
        body = await read_body(request.scope, request.receive, self._args)
        parsed = self.decider.named(parse_bounded(body, None, self.decider.config.limits))
        counts = await self.decider.count(parsed)
        query = Query(parsed, caller_of(request.scope))
        return JsonResponse(decision_to_dict(self.decider.decide(query, counts)))

    async def _get_profiles(self, _: Request) -> Response:
        return Response(self._profiles.current.to_json(), media_type="application/json")

    def _health(self) -> dict[str, Any]:
        found = (
            self._config_fault,
            *(fault for advisor in self.decider.advisors for fault in advisor.faults()),
            *self._profiles.faults(),
            *self.shared.loads.faults,
        )
        faults = [fault for fault in found if fault]
        states = self.decider.state().models
        models = {
            state.model: {
                "available": state.unavailable is None,
                "reason": state.unavailable,
                "replicas": state.replicas,
                "ongoing": state.ongoing,
                "profile": state.profile and self._profiles.origin(state.model),
                "generates": self.directory[state.model].generates,
                "input_tokens": self._counter.report(state.model),
            }
            for state in states
        }
        # Models scaled to 0 on purpose do not count as degraded.
        away = [m for m in models.values() if m["reason"] not in (None, SCALED_TO_ZERO)]
        return {
            "status": "degraded" if faults or away else "ok",
            "models": models,
            "profile_version": self._profiles.current.version,
            "faults": faults,
            "warnings": [*self._start_warnings, *self._config_warnings],
            "requests": {
                "dispatched": self.decider.decisions,
                "turned_away": self.decider.turned_away,
            },
            "record": self._profiles.record._asdict() | {"dropped_here": self._log.dropped},
        }

    async def _openapi(self, _: Request) -> Response:
        return JsonResponse(document())

    # Background

    def _take_news(self) -> None:
        reader, loads = self._sync.news.reader, self.shared.loads
        loads.take(reader.snapshot, self.directory.ongoing())
        self.directory.hear(reader.descriptions)
        self.directory.take(loads)
        self._profiles.hear(reader.topics)
        self.directory.set_trials(self._profiles.trials)

    async def _fetch_tokenizers(self) -> None:
        await self._tokenizers.refresh(self.directory.entries())

    async def _exchange_advice(self) -> None:
        await self.decider.exchange(self._profiles.store)

    async def _publish_metrics(self) -> None:
        self._metrics.flush()
        self._metrics.look(self.decider.state().models)

    async def _probe(self) -> None:
        await self.prober.probe(PROBE_PERIOD_S)

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
