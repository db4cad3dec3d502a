"""The input tokens of a request for every model, counted here and not by asking the models.

With each model's own tokenizer where a replica handed it over and the prompt is not too long, else
by a learnt number of bytes to a token. Fetching tokenizers is `source`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, NamedTuple

from deployments.router.tokens.estimates import TokenEstimate
from deployments.router.tokens.model_tokenizer import ModelTokenizer, TemplateRejectionError
from deployments.router.tokens.prompts import Prompt

INLINE_BYTES = 2048
"""Longer texts are counted in a thread; this many take the event loop about 0.8 ms."""
CACHED_COUNTS = 8192
RENDERED_TIMES = 4
LEAST_RENDERED = 65_536
"""A template may print much for a short prompt, such as a system message of its own."""
THREADS = 4
PATIENCE_S = 1.0
"""A prompt that has no count after so long, the wait for a thread included, is estimated."""

logger = logging.getLogger("ray.serve")

_Counted = int | str | None


class TokenizerState(NamedTuple):
    """What is known of one model's tokenizer.

    Attributes:
        digest: Names its bundle, `None` where there is none.
        fault: Why it cannot be used, `None` where it is loaded.
    """

    digest: str | None
    fault: str | None


class TokenCount(NamedTuple):
    """Input tokens of one request for one model.

    Attributes:
        exact: The engine will come to the same number; else it is an estimate.
        rejection: What the model's chat template says of the request, empty where it takes it as
            far as is known.
    """

    tokens: int
    exact: bool
    rejection: str = ""


@dataclass(slots=True)
class _Model:
    """How one model's prompts were counted.

    Attributes:
        tokenizer: Digest of its bundle, `None` where it has none.
        fault: Why its prompts are estimated, `None` where they are counted.
        miscounted: Answers whose input tokens were not what was counted.
    """

    tokenizer: str | None = None
    fault: str | None = "not known yet"
    counted: int = 0
    estimated: int = 0
    miscounted: int = 0


class TokenCounter:
    """One router's; for one event loop."""

    def __init__(self) -> None:
        self._models: dict[str, _Model] = {}
        self._tokenizers: dict[str, ModelTokenizer] = {}
        # By tokenizer, or by model where it has none.
        self._estimates: dict[str, TokenEstimate] = {}
        # `None` for prompts that only the engine can count, a text for those that no one can: the
        # chat template rejects them with it.
        self._counts: OrderedDict[tuple[str, bytes], _Counted] = OrderedDict()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="count")

    async def count(
        self, prompt: Prompt, models: Iterable[str], exact_bytes: int
    ) -> dict[str, TokenCount]:
        """Count a prompt for some models.

        Args:
            prompt: What is counted.
            models: Model ids; those with the same tokenizer are counted once.
            exact_bytes: Larger prompts are estimated.
        """
        if prompt.token_ids is not None:
            return dict.fromkeys(models, TokenCount(prompt.token_ids, exact=True))
        by_model = {name: self._digest(name) for name in models}
        digests = [d for d in dict.fromkeys(by_model.values()) if d in self._tokenizers]
        exact = await self._exact(prompt, digests, exact_bytes) if digests else {}
        return {
            name: TokenCount(counted, exact=True)
            if isinstance(counted := exact.get(digest), int)
            else self.estimate(prompt, name)._replace(rejection=counted or "")
            for name, digest in by_model.items()
        }

    def estimate(self, prompt: Prompt, model: str) -> TokenCount:
        """About how many input tokens a prompt has for a model."""
        if prompt.token_ids is not None:
            return TokenCount(prompt.token_ids, exact=True)
        return TokenCount(self._estimate(model).tokens(prompt), exact=False)

    def _digest(self, model: str) -> str:
        known = self._models.get(model)
        return (known and known.tokenizer) or ""

    def _estimate(self, model: str) -> TokenEstimate:
        return self._estimates.setdefault(self._digest(model) or model, TokenEstimate())

    async def _exact(
        self, prompt: Prompt, digests: Iterable[str], exact_bytes: int
    ) -> dict[str, _Counted]:
        content = prompt.content()
        if content is None or len(content) > exact_bytes:
            return {}
        key = blake2b(content, digest_size=16).digest()
        most_chars = most_rendered(exact_bytes)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PATIENCE_S
        found: dict[str, _Counted] = {}
        for digest in digests:
            if (digest, key) in self._counts:
                self._counts.move_to_end((digest, key))
                found[digest] = self._counts[digest, key]
                continue
            tokenizer = self._tokenizers[digest]
            if len(content) <= INLINE_BYTES:
                found[digest] = _count(tokenizer, prompt, most_chars)
            else:
                work = loop.run_in_executor(self._threads, _count, tokenizer, prompt, most_chars)
                try:
                    # What still waits for a thread then is taken out of the queue.
                    async with asyncio.timeout_at(deadline):
                        found[digest] = await work
                except TimeoutError:
                    continue
            self._counts[digest, key] = found[digest]
            if len(self._counts) > CACHED_COUNTS:
                self._counts.popitem(last=False)
        return found

    def learn(self, prompt: Prompt, model: str, count: TokenCount | None, tokens: int) -> None:
        """Take in how many input tokens an engine counted.

        Args:
            prompt: What was asked.
            model: Who answered.
            count: What was counted here, `None` where nothing was.
            tokens: The engine's number.
        """
        self._estimate(model).learn(prompt, tokens)
        known = self._models.get(model)
        if known is None or count is None:
            return
        known.counted += count.exact
        known.estimated += not count.exact
        if count.exact and count.tokens != tokens:
            known.miscounted += 1
            if known.miscounted == 1:
                logger.warning("%s counts %d input tokens, not %d", model, tokens, count.tokens)

    def tokenizer(self, model: str) -> ModelTokenizer | None:
        """A model's tokenizer, `None` where it is not loaded."""
        return self._tokenizers.get(self._digest(model))

    def knows(self, digest: str) -> bool:
        """Whether a tokenizer is loaded."""
        return digest in self._tokenizers

    def add(self, digest: str, tokenizer: ModelTokenizer) -> None:
        """Take in a tokenizer; it stays while `assign` names it."""
        self._tokenizers[digest] = tokenizer

    def assign(self, tokenizers: Mapping[str, TokenizerState]) -> None:
        """Say what is known of every model's tokenizer; models that are not named are forgotten."""
        self._models = {name: self._models.get(name) or _Model() for name in tokenizers}
        for name, (digest, fault) in tokenizers.items():
            self._models[name].tokenizer, self._models[name].fault = digest, fault
        digests = {digest for digest, _ in tokenizers.values()}
        self._tokenizers = {d: t for d, t in self._tokenizers.items() if d in digests}
        self._estimates = {
            name: estimate
            for name, estimate in self._estimates.items()
            if name in digests or name in tokenizers
        }

    def report(self, model: str) -> Mapping[str, Any]:
        """How a model's prompts are counted, for /health."""
        known = self._models.get(model) or _Model()
        estimate = self._estimate(model)
        return {
            "tokenizer": known.tokenizer,
            "fault": known.fault,
            "counted": known.counted,
            "miscounted": known.miscounted,
            "estimated": known.estimated,
            "bytes_per_token": estimate.bytes_per_token,
            "estimate_error": estimate.error,
        }


def most_rendered(exact_bytes: int) -> int:
    """Characters that a chat template may make of a prompt of so many bytes at most."""
    return max(RENDERED_TIMES * exact_bytes, LEAST_RENDERED)


def _count(tokenizer: ModelTokenizer, prompt: Prompt, most_chars: int) -> _Counted:
    try:
        return tokenizer.count(prompt, most_chars)
    except TemplateRejectionError as error:
        return str(error)
    # Whatever a template raises: the engine will refuse the request with it, or knows better.
    except Exception:
        return None
