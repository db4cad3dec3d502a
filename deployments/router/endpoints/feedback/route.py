"""`POST /v1/feedback`: what a client says of an answer, and what that teaches."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from ray.exceptions import RayError
from starlette.requests import Request
from starlette.responses import Response

from cluster.store.actor import STORE_TIMEOUT_S
from cluster.store.archive.entries import Feedback
from cluster.store.archive.feedback import Taken
from deployments.config.app import RouterArgs
from deployments.config.limits import Limits
from deployments.router.access.budgets import Account
from deployments.router.decision.decide import Decider
from deployments.router.endpoints.feedback.grading import has_words, score_of
from deployments.router.sync.decision_log import MAX_CONTENT_BYTES, DecisionLog
from deployments.router.sync.exchange import exchange
from deployments.router.sync.profiles import ProfileSource
from deployments.router.wire.api_error import ApiError
from deployments.router.wire.body import read_body
from deployments.router.wire.error_codes import ErrorCode
from deployments.router.wire.limits.body import check_size
from deployments.router.wire.openai import invalid_value, json_object, validated
from deployments.router.wire.respond import JsonResponse
from scheduler.bandit.model import Rating, frugality, usual_cost

FORMS = ("score", "thumbs", "answer")
MAX_BODY_BYTES = 2**20
"""So that the longest answer fits, with more than three bytes for a character."""


class FeedbackFields(BaseModel):
    """Body of `POST /v1/feedback`: a decision, and one of the other three."""

    model_config = ConfigDict(extra="forbid", strict=True)
    decision_id: str = Field(min_length=1, max_length=64)
    score: float | None = Field(default=None, ge=0, le=1, description="0 wrong, 1 right.")
    thumbs: Literal["up", "down"] | None = None
    answer: str | None = Field(
        default=None,
        min_length=1,
        # Characters; a longer one is nowhere recorded.
        max_length=MAX_CONTENT_BYTES,
        description="The right one; compared with the given one where the record holds it.",
    )


def feedback_route(
    args: RouterArgs,
    decider: Decider,
    log: DecisionLog,
    profiles: ProfileSource,
    share: Callable[[], Awaitable[object]],
) -> Callable[[Request], Awaitable[Response]]:
    """The handler, over the parts of a router.

    Args:
        args: How slow a body may be.
        decider: Has the limits of what is in it.
        log: Of decisions.
        profiles: Have the store's handle.
        share: Fetches what the store learnt, so that it counts in the next decision.
    """

    async def give(request: Request) -> Response:
        body = await read_body(request.scope, request.receive, args)
        fields = parse_feedback(body, decider.config.limits)
        record = await log.find(profiles.store, fields.decision_id)
        account: Account | None = request.scope.get("account")
        if record is None or not may_rate(record, account):
            raise _unknown(fields.decision_id)
        form, score = _score(fields, record)
        feedback = Feedback(
            decision_id=fields.decision_id,
            score=score,
            given_as=form,
            given_by=account.key.name if account else None,
            given_at=time.time(),
        )
        try:
            # The record takes nothing for a decision that it does not know yet.
            await exchange(log, profiles.store)
            async with asyncio.timeout(STORE_TIMEOUT_S):
                taken: Taken | None = await profiles.store.archive.take_feedback.remote(
                    feedback, rating_of(record, score)
                )
            if taken is None:
                raise _unknown(fields.decision_id)
            await share()
        except (RayError, TimeoutError) as error:
            message = "the store that keeps feedback is unavailable; it may have recorded it"
            raise ApiError(503, message, code="store_unavailable", retry_after_s=5) from error
        answer = {"decision_id": fields.decision_id, "score": score, **taken._asdict()}
        return JsonResponse(answer)

    return give


def parse_feedback(body: bytes, limits: Limits) -> FeedbackFields:
    """Read a body.

    Args:
        body: As the client sent it.
        limits: What it may have in it.

    Raises:
        ApiError: 413, it is too large; 400 with the field and what was given.
    """
    if len(body) > MAX_BODY_BYTES:
        message = f"the body of feedback may have at most {MAX_BODY_BYTES} bytes, got {len(body)}"
        raise ApiError(413, message, code=ErrorCode.BODY_TOO_LARGE)
    check_size(body, limits)
    data = json_object(body)
    fields = validated(FeedbackFields, data)
    given = [name for name in FORMS if getattr(fields, name) is not None]
    if len(given) != 1:
        forms = ", ".join(FORMS)
        found = ", ".join(given) or "none"
        raise invalid_value(given[-1] if given else "score", f"give one of {forms}", found)
    if fields.answer is not None and not has_words(fields.answer):
        raise invalid_value("answer", "must have a letter or a digit", fields.answer)
    return fields


def may_rate(record: Mapping[str, Any], account: Account | None) -> bool:
    """Whether a decision is the caller's own; administrators may rate any.

    Args:
        record: Of the decision.
        account: Of the caller, `None` where there are no keys.
    """
    return account is None or account.key.admin or record.get("key") == account.key.name


def rating_of(record: Mapping[str, Any], score: float) -> Rating | None:
    """What the score of an answer teaches.

    Args:
        record: Of the decision.
        score: 0..1.

    Returns:
        `None` where the decision keeps no context, or no single model gave the answer.
    """
    report, seen, attempts = record.get("bandit"), record["observation"], record["attempts"]
    if not report or not seen or record["error"] is not None or len(attempts) != 1:
        return None
    candidates = record["candidates"]
    answered = next((c for c in candidates if c["model"] == seen["model"]), None)
    if answered is None:
        return None
    off = {"energy": 0.0, "time": 0.0}
    for part, name in (("energy", "energy_joules"), ("time", "runtime_s")):
        if seen[name] is not None:
            usual = usual_cost([candidate[name] for candidate in candidates])
            off[part] = frugality(seen[name], usual) - frugality(answered[name], usual)
    return Rating(
        model=seen["model"],
        context=tuple(report["context"]),
        quality=score - answered["accuracy"],
        **off,
    )


def _score(fields: FeedbackFields, record: Mapping[str, Any]) -> tuple[str, float]:
    if fields.thumbs is not None:
        return "thumbs", float(fields.thumbs == "up")
    if fields.answer is not None:
        return "answer", score_of(record, fields.answer)
    assert fields.score is not None
    return "score", float(fields.score)


def _unknown(decision_id: str) -> ApiError:
    message = f"decision_id: no decision {decision_id!r} of yours is kept"
    return ApiError(404, message, param="decision_id", code="decision_not_found")
