"""`Idempotency-Key`: a request that comes again gets the answer of the first time.

The router that the store gives the key to generates, whether or not its client stays; every other
one asks again until there is an answer, or until that router's lease has run out and it generates
itself. While the store is unavailable each router remembers for itself, and hands that to the store
when it is back.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import time
import zlib
from collections.abc import Awaitable, Callable
from contextvars import Context
from typing import NamedTuple

from ray.exceptions import RayError
from starlette.types import Scope, Send

from cluster.store.actor import STORE_TIMEOUT_S, Store
from cluster.store.replies import RENEWAL_S, AnswerShelf, Claim, ClaimState, KeptAnswer
from deployments.router.access.fanout import Broadcast, Room
from deployments.router.sync.exchange import Exchange, Standing
from deployments.router.wire.api_error import ApiError
from deployments.router.wire.errors import send_error

logger = logging.getLogger("ray.serve")

HEADER = "Idempotency-Key"
_HEADER = HEADER.lower().encode()
_ALLOWED = re.compile(rb"[\x21-\x7e]{1,255}")
STORE_PATIENCE_S = 1.0
"""A store that has not answered for so long is away, and the router generates without it."""
FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 0.5
"""Between two questions whether another router's answer is there: a tenth of the time so far."""
PARCEL_BYTES = 4 * 2**20
"""Of answers that a store that lost them gets back at a time."""

Generate = Callable[[Send], Awaitable[bool]]
"""Answers a request on bare ASGI; says whether the answer was whole."""


class RequestKey(NamedTuple):
    """What makes a request the same as another one.

    Attributes:
        answer_id: Hash of the client's API key and the header's value.
        fingerprint: Hash of the path and the very bytes of the body.
        owner: Hash of the API key, empty where there are no keys.
    """

    answer_id: str
    fingerprint: str
    owner: str = ""


def request_key(scope: Scope, body: bytes) -> RequestKey | None:
    """The key of a request, `None` where it has none.

    Raises:
        ApiError: 400, the header is no key, or is there twice.
    """
    values = [value for name, value in scope["headers"] if name == _HEADER]
    if not values:
        return None
    if len(values) > 1:
        raise _invalid(f"must be there once, got {len(values)}")
    if not _ALLOWED.fullmatch(values[0]):
        shown = values[0][:100].decode("latin-1")
        raise _invalid(f"must be 1 to 255 visible ASCII characters, got {shown!r}")
    # Of the API key itself, not of its name, which may become another client's.
    account = scope.get("account")
    client = account.key.sha256 if account else ""
    path = scope.get("asked_path", scope["path"])
    return RequestKey(
        hashlib.sha256(b"\0".join((client.encode(), values[0]))).hexdigest(),
        hashlib.sha256(b"\0".join((path.encode(), body))).hexdigest(),
        client,
    )


class Idempotency(Exchange[dict[str, str]]):
    """One router's.

    Args:
        router_id: Which router this is.
        store: Gives the handles of the store.
        max_bytes: Of answers that are kept, here and in the store, and of those under way here.
        patience_s: How long a request waits for another router.
        stalled_client_s: How long a client may read nothing.
    """

    period_s = RENEWAL_S
    topic = "claims"

    def __init__(
        self,
        router_id: str,
        store: Callable[[], Store],
        max_bytes: int,
        patience_s: float,
        stalled_client_s: float,
    ) -> None:
        self.router_id = router_id
        self._store = store
        self._max_bytes = max_bytes
        self._patience_s = patience_s
        self._stalled_client_s = stalled_client_s
        self._room = Room(max_bytes)
        self._running: dict[RequestKey, Broadcast] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        # Fingerprints of what is generated here, by id.
        self._claims: dict[str, str] = {}
        self._own = AnswerShelf()
        self._board_id: str | None = None
        self._answering: str | None = None

    async def answer(self, key: RequestKey, generate: Generate, send: Send) -> None:
        """Answer a request: generate, join who does, or send what was generated before.

        Raises:
            ConnectionAbortedError: See `Broadcast.follow`.
        """
        while (broadcast := self._running.get(key)) is not None and not broadcast.joinable:
            # Its beginning is gone, or it is an error that is about to be forgotten.
            await broadcast.ended.wait()
        joined = broadcast is not None
        broadcast = broadcast or self._begin(key, generate)
        await broadcast.follow(send, joined=joined, patience_s=self._stalled_client_s)

    @property
    def wanted(self) -> bool:
        """Whether anything is generated or kept here."""
        return bool(self._claims or self._own)

    def take(self) -> dict[str, str] | None:
        """What is generated here; it stays so."""
        return dict(self._claims) or None

    def is_news(self, version: str) -> bool:
        """Whether the board is another one than the one that got the answers."""
        return version != self._board_id

    async def hand_over(self, store: Store, batch: dict[str, str] | None) -> Standing:
        """Tell the board what is generated here."""
        answering: str = await store.board.renew_claims.remote(self.router_id, batch or {})
        self._answering = answering
        return Standing.AHEAD if self.is_news(answering) else Standing.LEVEL

    async def restore(self, store: Store) -> None:
        """Give the board the answers that it lost."""
        answering = self._answering
        for parcel in self._own.parcels(PARCEL_BYTES):
            await store.board.keep_answers.remote(parcel, self._max_bytes)
        self._board_id = answering

    def _begin(self, key: RequestKey, generate: Generate) -> Broadcast:
        broadcast = self._running[key] = Broadcast(self._room, key.owner)
        # Serve cancels what a request asked of others when its client hangs up; an empty context
        # belongs to no request.
        task = asyncio.create_task(self._run(key, generate, broadcast), context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return broadcast

    async def _run(self, key: RequestKey, generate: Generate, broadcast: Broadcast) -> None:
        try:
            await self._answer(key, generate, broadcast)
        except ApiError as error:
            await send_error(error, broadcast.send)
        except Exception:
            # Its clients are cut off.
            logger.exception("a request with an %s failed", HEADER)
        finally:
            broadcast.end()
            del self._running[key]

    async def _answer(self, key: RequestKey, generate: Generate, broadcast: Broadcast) -> None:
        claim = await self._claim(key, broadcast)
        if claim is None:
            return
        if claim.state is ClaimState.OTHER_REQUEST:
            raise _reused()
        if claim.answer is not None:
            broadcast.replayed = True
            await _replay(claim.answer, broadcast.send)
            return
        if not broadcast.wanted:
            broadcast.joinable = False
            await self._release(key, broadcast)
            return
        self._claims[key.answer_id] = key.fingerprint
        whole = False
        try:
            whole = await generate(broadcast.send)
        finally:
            broadcast.joinable = broadcast.joinable and whole
            # The claim goes when the answer is there.
            await (self._keep if broadcast.joinable else self._release)(key, broadcast)
            del self._claims[key.answer_id]

    async def _claim(self, key: RequestKey, broadcast: Broadcast) -> Claim | None:
        """Wait until the answer is there or is this router's to generate.

        Returns:
            What the store says; `None` where all clients have gone meanwhile.

        Raises:
            ApiError: 504, another router takes too long.
        """
        began = answered_at = time.monotonic()
        store_patience_s = min(STORE_PATIENCE_S, self._patience_s / 2)
        while (now := time.monotonic()) - began < self._patience_s:
            if not broadcast.wanted:
                return None
            here = self._known_here(key)
            if here is not None:
                return here
            try:
                async with asyncio.timeout(store_patience_s):
                    claim: Claim = await self._store().board.claim_answer.remote(
                        key.answer_id, key.fingerprint, self.router_id
                    )
            except (RayError, TimeoutError) as error:
                if time.monotonic() - answered_at >= store_patience_s:
                    logger.warning("no store to ask for an %s: %s", HEADER, type(error).__name__)
                    return self._known_here(key) or Claim(ClaimState.YOURS)
            else:
                answered_at = time.monotonic()
                if claim.state is not ClaimState.TAKEN:
                    return claim
            await asyncio.sleep(min(max(FIRST_PAUSE_S, (now - began) / 10), LONGEST_PAUSE_S))
        message = f"another router did not finish it within {self._patience_s:g} s"
        raise ApiError(504, message, code="timeout")

    def _known_here(self, key: RequestKey) -> Claim | None:
        answer = self._own.find(key.answer_id)
        if answer is not None:
            return Claim.of(answer, key.fingerprint)
        if self._claims.get(key.answer_id, key.fingerprint) != key.fingerprint:
            return Claim(ClaimState.OTHER_REQUEST)
        return None

    async def _keep(self, key: RequestKey, broadcast: Broadcast) -> None:
        headers, body = broadcast.content()
        packed = await asyncio.to_thread(zlib.compress, body, 1)
        answer = KeptAnswer(key.fingerprint, headers, packed, time.time(), key.owner)
        new = {key.answer_id: answer}
        try:
            async with asyncio.timeout(STORE_TIMEOUT_S):
                if await self._store().board.keep_answers.remote(new, self._max_bytes):
                    self._own.put(new, self._max_bytes)
        except (RayError, TimeoutError):
            # It gets all of them when it is back.
            self._own.put(new, self._max_bytes)
            self._board_id = None

    async def _release(self, key: RequestKey, _: Broadcast) -> None:
        try:
            async with asyncio.timeout(STORE_PATIENCE_S):
                await self._store().board.release_claim.remote(key.answer_id, self.router_id)
        except (RayError, TimeoutError):
            logger.info("the claim of an %s lapses by itself", HEADER)


async def _replay(answer: KeptAnswer, send: Send) -> None:
    body = await asyncio.to_thread(zlib.decompress, answer.body)
    await send({"type": "http.response.start", "status": 200, "headers": list(answer.headers)})
    await send({"type": "http.response.body", "body": body})


def _invalid(rule: str) -> ApiError:
    return ApiError(400, f"{HEADER}: {rule}", param=HEADER, code="invalid_value")


def _reused() -> ApiError:
    message = f"{HEADER}: was given before with another body or path; a new request needs a new key"
    return ApiError(422, message, param=HEADER, code="idempotency_key_reused")
