"""Brings final answers into a form in which two of them can be compared.

Numbers, choices, JSON and Python values, code and short texts can be compared; a letter of three
paragraphs cannot, and has no form. Of a long text only the end is read, where answers stand.
"""

from __future__ import annotations

import ast
import re
from decimal import Decimal, InvalidOperation
from typing import Any

import orjson

READ_CHARS = 20_000
SHORT_CHARS = 120
MOST_VALUE_CHARS = 4000
FORMS = ("blank", "whole number", "other number", "choice", "short text", "value", "code")
"""What an answer looks like, for `form_of`."""

_ANSWER_KEYS = ("answer", "final_answer", "final answer", "result", "output")
_BOXED = re.compile(r"\\boxed\s*\{")
_MARKED = re.compile(
    r"(?:####|(?:final\s+)?answer\s*(?:is|:)|antwort\s*(?:ist|:)|réponse\s*(?:est|:)|"
    r"respuesta\s*(?:es|:)|答案\s*(?:是|为|:|：))\s*(.+)",
    re.IGNORECASE,
)
_FENCE = re.compile(r"```[\w+-]*\n(.*?)```", re.DOTALL)
_FRACTION = re.compile(r"\\[dt]?frac\s*\{([^{}]{1,30})\}\s*\{([^{}]{1,30})\}")
_CHOICE = re.compile(r"\(?([A-Ja-j])[).:]?(?:\s.*)?", re.DOTALL)
# Possessive: whatever a model writes is read once, without trying shorter runs.
_NUMBER = re.compile(r"[-+]?(?:\d++(?:,++\d++)*+(?:,*+\.\d++)?|\.\d++)(?:[eE][-+]?\d{1,3})?")
_GROUPED = re.compile(r"(?<=\d),(?=\d{3}(?:\D|$))")
_LEADING_MARKS = re.compile(r"[\s$*_`]*+")
_TRAILING_MARKS = re.compile(r"[\s$*_`.。]*+")
_MATHS_MARKS = re.compile(r"\\(?:left|right|,|;|!|text\s*\{\s*\}|displaystyle)")


def comparable(text: str) -> str | None:
    """The final answer of a whole text in comparable form.

    Args:
        text: What a model wrote; any length and language.

    Returns:
        `None` where there is no answer that can be compared.
    """
    end = text[-READ_CHARS:].strip()
    if not end:
        return None
    for find in (_from_json, _boxed, _marked):
        found = find(end)
        if found is not None:
            return canonical(found)
    fences = _FENCE.findall(end)
    if fences:
        return "code:" + " ".join(fences[-1].split())[:MOST_VALUE_CHARS]
    if len(text) <= SHORT_CHARS and "\n" not in end:
        return canonical(end)
    return None


def canonical(answer: str) -> str | None:
    r"""One answer without the ways in which the same thing can be written.

    Args:
        answer: Such as ` $1,234.50 `, `(b) Paris`, `[1, 2]` or `\frac{1}{2}`.
    """
    plain = answer
    if len(plain) > MOST_VALUE_CHARS:
        return None
    plain = _MATHS_MARKS.sub("", plain)
    plain = _FRACTION.sub(r"\1/\2", plain)
    plain = _undecorated(plain).strip()
    if not plain:
        return None
    number = _number(plain)
    if number is not None:
        return number
    if plain[0] in "[({\"'":
        value = _value(plain)
        if value is not None:
            return value
    choice = _CHOICE.fullmatch(plain)
    if choice and (len(plain) <= 3 or plain[1:2] in ").:" or plain[0] == "("):
        return choice.group(1).upper()
    return " ".join(plain.split())


def form_of(answer: str | None) -> int:
    """Index into `FORMS` of an answer in comparable form."""
    if answer is None or not answer:
        return 0
    fraction = "/" in answer and answer.replace("/", "").strip("-").isdigit()
    if fraction or _NUMBER.fullmatch(answer):
        return 1 if answer.lstrip("-").isdigit() else 2
    if len(answer) == 1 and answer.isalpha():
        return 3
    if answer.startswith("code:"):
        return 6
    return 5 if answer[0] in "[({\"'" or len(answer) > SHORT_CHARS else 4


def _from_json(text: str) -> str | None:
    start, stop = text.find("{"), text.rfind("}")
    if start < 0 or stop < start:
        return None
    try:
        value = orjson.loads(text[start : stop + 1])
    except orjson.JSONDecodeError:
        return None
    named = {str(key).strip().lower(): one for key, one in value.items()}
    found = next((named[key] for key in _ANSWER_KEYS if key in named), value)
    return found if isinstance(found, str) else orjson.dumps(found).decode()


def _boxed(text: str) -> str | None:
    boxes = list(_BOXED.finditer(text))
    if not boxes:
        return None
    depth, start = 1, boxes[-1].end()
    for place in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return text[start:place]
    return None


def _marked(text: str) -> str | None:
    found = _MARKED.findall(text)
    if not found:
        return None
    line = str(found[-1]).strip()
    return line if len(line) <= SHORT_CHARS else None


def _undecorated(text: str) -> str:
    text = _LEADING_MARKS.sub("", text, count=1)
    # Backwards: a search for marks that stand at the end would begin at every one of them.
    return _TRAILING_MARKS.sub("", text[::-1], count=1)[::-1]


def _number(text: str) -> str | None:
    bare = text.replace("\\$", "").replace("\\%", "").strip("$€£% ")
    bare = _GROUPED.sub("", bare)
    if not _NUMBER.fullmatch(bare):
        return None
    try:
        value = Decimal(bare)
    except InvalidOperation:
        return None
    if abs(value.adjusted()) > 60:
        return None
    shown = f"{value.normalize():f}"
    return "0" if shown in ("-0", "") else shown


def _value(text: str) -> str | None:
    """A JSON or Python value, tuples as lists."""
    try:
        value: Any = ast.literal_eval(text)
        return orjson.dumps(_plain(value), option=orjson.OPT_SORT_KEYS).decode()
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, set | frozenset):
        return sorted((_plain(one) for one in value), key=str)
    if isinstance(value, str | int | float | bool) or value is None:
        return value
    return str(value)
