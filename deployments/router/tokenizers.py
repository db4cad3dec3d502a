"""Fetches the models' tokenizers from their replicas, once each, in the background."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable

from deployments.links.tokenizer_bundle import TokenizerBundle
from deployments.router.model_entry import ModelEntry
from deployments.router.tokens.counting import TokenCounter, TokenizerState
from deployments.router.tokens.model_tokenizer import ModelTokenizer

FETCH_TIMEOUT_S = 30.0
RETRY_S = 30.0
"""How long a model that did not hand over its tokenizer is left alone."""

logger = logging.getLogger("ray.serve")


class TokenizerSource:
    """Keeps a counter supplied.

    Args:
        counter: Gets the tokenizers.
    """

    def __init__(self, counter: TokenCounter) -> None:
        self._counter = counter
        self._states: dict[str, TokenizerState] = {}
        # By model and digest: what went wrong and when, in `time.monotonic()`.
        self._failed: dict[tuple[str, str], tuple[str, float]] = {}

    async def refresh(self, entries: Iterable[ModelEntry]) -> None:
        """Fetch what is missing; the counter gets to know of every model."""
        states = {}
        for entry in list(entries):
            states[entry.model] = await self._state(entry)
        self._states = states
        self._counter.assign(states)

    async def _state(self, entry: ModelEntry) -> TokenizerState:
        if entry.description is None:
            # Away for a while: it will come back with the same.
            return self._states.get(entry.model, TokenizerState(None, entry.unavailable))
        digest = entry.description.get("tokenizer")
        if digest is None:
            return TokenizerState(None, entry.description.get("tokenizer_fault"))
        if not self._counter.knows(digest):
            fault, since = self._failed.get((entry.model, digest), (None, 0.0))
            if fault is not None and time.monotonic() - since < RETRY_S:
                return TokenizerState(digest, fault)
            try:
                await self._fetch(entry, digest)
            except Exception as error:
                # The model is answered for all the same, by estimates.
                fault = f"tokenizer: {type(error).__name__}: {error}".splitlines()[0]
                logger.warning("%s: %s", entry.model, fault)
                self._failed[entry.model, digest] = fault, time.monotonic()
                return TokenizerState(digest, fault)
        self._failed.pop((entry.model, digest), None)
        return TokenizerState(digest, None)

    async def _fetch(self, entry: ModelEntry, digest: str) -> None:
        handle = entry.handle(stream=False).options(method_name="tokenizer")
        async with asyncio.timeout(FETCH_TIMEOUT_S):
            bundle: TokenizerBundle = await handle.remote()
        found = await asyncio.to_thread(bundle.digest)
        if found != digest:
            raise ValueError(f"the replica described {digest:.12} and sent {found:.12}")
        self._counter.add(digest, await asyncio.to_thread(ModelTokenizer, bundle))
