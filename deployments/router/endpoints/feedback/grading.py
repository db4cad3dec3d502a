"""Whether a recorded answer is the right one, by its text alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import orjson

from deployments.router.wire.api_error import ApiError

_WORDS = re.compile(r"(?:(?<!\w)-(?=\d))?[^\W_]+(?:[.,]\d+)*")


def score_of(record: Mapping[str, Any], right: str) -> float:
    """1 where the answer of a decision is, or ends with, the right one; else 0.

    Case, spaces and punctuation do not matter. The last line of the answer, or all of it, must be
    the right answer, or the last words must be: `So it is 42.` is right for `42`.

    Args:
        record: Of the decision.
        right: The right answer; has a letter or a digit.

    Raises:
        ApiError: 422, the record does not hold the answer as text.
    """
    given = _words(_answer(record))
    wanted = _words(right)
    return float(given[-len(wanted) :] == wanted)


def has_words(text: str) -> bool:
    """Whether there is anything to compare."""
    return _WORDS.search(text.casefold()) is not None


def _words(text: str) -> list[str]:
    return _WORDS.findall(text.casefold())


def _answer(record: Mapping[str, Any]) -> str:
    content = record.get("content")
    if content is None:
        raise ApiError(
            422,
            "answer: the record does not hold what was answered (record_content is off, or was "
            "then), so nothing can be compared: give a score",
            param="answer",
            code="answer_not_recorded",
        )
    try:
        texts = _texts(content["answer"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _no_text("is cut off or no text") from error
    if len(texts) != 1:
        raise _no_text("has several choices, or none")
    return next(iter(texts.values()))


def _no_text(why: str) -> ApiError:
    message = f"answer: what was answered {why}: give a score"
    return ApiError(422, message, param="answer", code="answer_not_recorded")


def _texts(answer: str) -> dict[int, str]:
    """The text of each choice, of a whole answer or of the events of a stream."""
    # Not by lines: an answer may have other separators of lines, such as U+2028.
    events = [event[6:] for event in answer.split("\n\n") if event.startswith("data: ")]
    if events and events.pop() != "[DONE]":
        raise ValueError("cut off")
    texts: dict[int, str] = {}
    for part in events or [answer]:
        for choice in orjson.loads(part)["choices"]:
            spoken = choice.get("delta") or choice.get("message") or {}
            text = choice.get("text") or spoken.get("content") or ""
            texts[choice["index"]] = texts.get(choice["index"], "") + text
    return texts
