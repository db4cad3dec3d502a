"""Bounds of what an answer may be constrained by: JSON schemas, regular expressions and grammars.

What an engine makes of them grows with their repetitions, not with their length. The checks read
each constraint once, without recursion, and know the keywords only, not the meaning of a schema.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from deployments.config.limits import Limits
from deployments.router.wire.limits.references import References
from deployments.router.wire.members import Path, dotted, too_deep, too_much

_COUNTS = frozenset(
    ("minItems", "maxItems", "minContains", "maxContains", "minProperties", "maxProperties")
)
_LENGTHS = frozenset(("minLength", "maxLength"))
_NAMES = frozenset(
    ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies")
)
"""Keywords whose members are names, not keywords."""
_DATA = frozenset(("const", "default", "examples", "example"))
"""Keywords whose value is data, not a schema."""
_PATTERNS = frozenset(("pattern", "regex", "whitespace_pattern"))
_SCHEMA_HOLDERS = frozenset(("schema", "json_schema", "json", "parameters"))
# Possessive: of digits without a bracket behind them none is tried twice.
_BOUNDS = re.compile(r"\{(\d++)?(,)?(\d++)?\}")
_UNBOUNDED = 1
"""`*`, `+` and `{2,}` are loops, which repeat nothing in what is compiled."""


def check_constraints(data: Mapping[str, Any], limits: Limits) -> None:
    """Check all constraints of a request.

    Args:
        data: The body.
        limits: What it may ask for.

    Raises:
        ApiError: 400 with the field, its value and the limit.
    """
    for field in ("response_format", "structured_outputs", "tools"):
        value = data.get(field)
        if isinstance(value, dict | list) and value:
            _check((field,), value, limits)


def _check(path: Path, root: Any, limits: Limits) -> None:
    try:
        encoded = orjson.dumps(root)
    except orjson.JSONEncodeError:
        # Its own limit is 254 levels.
        raise too_deep(path[0], limits.schema_depth) from None
    if len(encoded) > limits.schema_bytes:
        raise too_much(dotted(path), len(encoded), limits.schema_bytes, " bytes")
    Walk(limits).check(path, root)


class Walk:
    """One pass over a constraint, which counts what adds up.

    Args:
        limits: What it may ask for.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._nodes = self._properties = self._choices = self._expressions = 0
        self._references = References()
        # What is read from texts lives as long as the references that know it by its identity.
        self._texts: list[Any] = []

    def check(self, path: Path, root: Any) -> None:
        """Check a constraint and everything in it.

        Args:
            path: Where it stands in the body.
            root: The constraint.

        Raises:
            ApiError: 400.
        """
        limits = self._limits
        # Path, value, whether its members are names, and the schema that `#` means there.
        stack: list[tuple[Path, Any, bool, Any]] = [(path, root, False, root)]
        deepest = len(path) + limits.schema_depth
        while stack:
            where, value, names, schema = stack.pop()
            self._nodes += 1
            if self._nodes > limits.schema_nodes:
                raise too_much(dotted(path), "more", limits.schema_nodes, " arrays and objects")
            if len(where) > deepest:
                raise too_deep(path[0], limits.schema_depth)
            if isinstance(value, list):
                stack += [
                    ((*where, index), item, False, schema)
                    for index, item in enumerate(value)
                    if isinstance(item, list | dict)
                ]
                continue
            if names:
                self._count_properties(where, value)
            elif "$ref" in value:
                self._references.check(where, value, schema)
            for key, item in value.items():
                inner = (*where, key)
                if not names:
                    if key in _DATA:
                        continue
                    text = self._keyword(inner, key, item)
                    if text is not None:
                        self._texts.append(text)
                        stack.append((inner, text, False, text))
                        continue
                elif where[-1] == "patternProperties":
                    self._pattern((*where, key), key)
                if isinstance(item, list | dict) and not (key == "enum" and not names):
                    holds = key in _SCHEMA_HOLDERS and not names
                    stack.append(
                        (inner, item, key in _NAMES and not names, item if holds else schema)
                    )

    def _count_properties(self, where: Path, value: Mapping[str, Any]) -> None:
        self._properties += len(value)
        if self._properties > self._limits.schema_properties:
            most = self._limits.schema_properties
            raise too_much(dotted(where), self._properties, most, " properties in all")

    def _keyword(self, where: Path, key: str, value: Any) -> Any:
        """Check one keyword; a schema or structural tag that is a text comes back as its JSON."""
        limits = self._limits
        kind = type(value)
        if kind in (int, float):
            if key in _COUNTS and value > limits.schema_items:
                raise too_much(dotted(where), value, limits.schema_items)
            if key in _LENGTHS and value > limits.schema_length:
                raise too_much(dotted(where), value, limits.schema_length)
        elif kind is str:
            if key in _PATTERNS:
                self._pattern(where, value)
            elif key in ("grammar", "syntax", "definition", "ebnf"):
                self._expression(where, value, quoted=True)
            elif key in ("json", "structural_tag", "schema") and len(where) <= 4:
                return _from_text(value)
        elif kind is list and key in ("enum", "choice", "choices"):
            self._choices += len(value)
            if self._choices > limits.schema_choices:
                most = limits.schema_choices
                raise too_much(dotted(where), self._choices, most, " values in all")
        return None

    def _pattern(self, where: Path, pattern: str) -> None:
        if len(pattern) > self._limits.pattern_length:
            raise too_much(dotted(where), len(pattern), self._limits.pattern_length, " characters")
        self._expression(where, pattern, quoted=False)

    def _expression(self, where: Path, text: str, *, quoted: bool) -> None:
        self._expressions += len(text)
        if self._expressions > (most := self._limits.grammar_length):
            unit = " characters of patterns and grammars"
            raise too_much(dotted(where), self._expressions, most, unit)
        check_repetitions(where, text, self._limits, quoted=quoted)


def _from_text(text: str) -> Any:
    """A schema that comes as a text; what is no JSON is left to the engine."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, list | dict) else None


def check_repetitions(where: Path, text: str, limits: Limits, *, quoted: bool) -> None:
    """Bound the counted repetitions of a regular expression or grammar, and its groups.

    Repetitions within repetitions multiply: `(a{1,9}){1,9}` repeats 81 times.

    Args:
        where: Of the text.
        text: The expression.
        limits: `repetitions` and `schema_depth`.
        quoted: Quotation marks enclose literal text, as they do in grammars.

    Raises:
        ApiError: 400.
    """
    # For each open group the most that anything in it is repeated; `atom` is what the last item
    # has in it.
    groups: list[int] = []
    most = atom = 1
    for kind, times in _items(text, quoted=quoted):
        if kind == "(":
            groups.append(most)
            if len(groups) > limits.schema_depth:
                raise too_much(dotted(where), len(groups), limits.schema_depth, " nested groups")
            most = atom = 1
        elif kind == ")":
            atom = most
            most = max(groups.pop(), atom) if groups else atom
        elif kind == "{":
            atom *= times
            most = max(most, atom)
            if atom > limits.repetitions:
                raise too_much(dotted(where), atom, limits.repetitions, " repetitions")
        else:
            atom = 1


def _items(text: str, *, quoted: bool) -> Iterator[tuple[str, int]]:
    """Groups, counted repetitions and everything else, in their order."""
    index, end = 0, len(text)
    while index < end:
        character = text[index]
        if character == "\\":
            index += 2
            yield "x", 1
        elif character == "[":
            index = _after(text, index + 1, "]")
            yield "x", 1
        elif quoted and character in "\"'":
            index = _after(text, index + 1, character)
            yield "x", 1
        elif character == "{" and (found := _BOUNDS.match(text, index)):
            index = found.end()
            yield "{", _times(*found.groups())
        else:
            index += 1
            if character not in "?*+":
                yield (character if character in "()" else "x"), 1


def _times(least: str | None, comma: str | None, most: str | None) -> int:
    # A number of thousands of digits takes Python long, and says no more than this.
    numbers = [int(number[:12]) for number in (least, most) if number]
    if not numbers or (comma and not most and not least):
        return _UNBOUNDED
    return max(1, *numbers)


def _after(text: str, index: int, closing: str) -> int:
    """The place behind a character class or a literal."""
    while index < len(text):
        if text[index] == "\\":
            index += 2
            continue
        if text[index] == closing:
            return index + 1
        index += 1
    return index
