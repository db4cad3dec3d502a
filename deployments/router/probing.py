"""Short requests of the router's own to models without traffic: else their drift is unknown."""

from __future__ import annotations

import asyncio
import random
import uuid

import orjson

from deployments.links.frames import ModelRequest
from deployments.links.own_request import random_prompt
from deployments.router.decision.decide import Decider
from deployments.router.decision.query import Query
from deployments.router.delivery.dispatch import Dispatch
from deployments.router.models import ModelDirectory
from deployments.router.sync.shared import SharedState
from deployments.router.wire.openai import parse_request
from scheduler.types import ModelState

PROBE_TIMEOUT_S = 60.0
PROMPT_DIGITS = 64
OUTPUT_TOKENS = 8


class Prober:
    """Probes one model at a time; for one event loop."""

    def __init__(self, decider: Decider, directory: ModelDirectory, shared: SharedState) -> None:
        self._decider = decider
        self._directory = directory
        self._shared = shared
        self._idle_s = 0.0
        self._decisions = 0

    async def probe(self, elapsed_s: float) -> None:
        """Probe a model that is due, if there is one and somebody uses the router.

        Args:
            elapsed_s: Since the last call.

        Raises:
            ApiError: The model did not answer.
            TimeoutError: Not in time.
        """
        interval_s = self._decider.config.probe_interval_s
        quiet = self._decider.decisions == self._decisions
        self._idle_s = self._idle_s + elapsed_s if quiet else 0.0
        self._decisions = self._decider.decisions
        if interval_s is None or self._idle_s >= interval_s or not self._decider.decisions:
            return
        due = [s.model for s in self._decider.state().models if self._is_due(s, interval_s)]
        # Every router sees the same models due: one of them, and only every so often, is enough.
        if due and random.random() < 1 / self._shared.loads.routers:
            await self._ask(random.choice(due))

    def _is_due(self, state: ModelState, interval_s: float) -> bool:
        profile = state.profile
        if state.unavailable is not None or profile is None or state.ongoing:
            return False
        key = (state.model, profile.accelerator, profile.fit_id)
        idle_s = self._shared.learning.corrections.idle_s(*key)
        return idle_s is None or idle_s >= interval_s

    async def _ask(self, model: str) -> None:
        prompt = random_prompt(PROMPT_DIGITS)
        body = orjson.dumps(
            {"model": model, "prompt": prompt, "max_tokens": OUTPUT_TOKENS, "ignore_eos": True}
        )
        parsed = parse_request(body, "completions")
        decision = self._decider.decide(Query(parsed), await self._decider.count(parsed))
        request = ModelRequest(
            "completions", body, f"probe-{uuid.uuid4().hex}", self._shared.loads.router_id
        )
        entry = self._directory[model]
        dispatch = Dispatch(entry, request, self._directory.links, avoid=entry.avoid)
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            await dispatch.answer()
        self._decider.learn(parsed, decision, dispatch.observation)
