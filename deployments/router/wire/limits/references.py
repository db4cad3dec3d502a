"""References of a JSON schema that lead nowhere: they come back to themselves and say nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from deployments.router.wire.api_error import ApiError
from deployments.router.wire.members import Path, dotted

LONGEST_CHAIN = 256


@dataclass(slots=True)
class _Followed:
    """A schema on the way, what it leads to without a step into a value, and how long that is."""

    schema: Mapping[str, Any]
    targets: Iterator[Mapping[str, Any]]
    length: int = 1


class References:
    """Those of one constraint; each is followed once, however many lead to it."""

    def __init__(self) -> None:
        # How long the chain from a schema is, by its identity and that of what `#` means there.
        self._lengths: dict[tuple[int, int], int] = {}

    def check(self, where: Path, schema: Mapping[str, Any], root: Any) -> None:
        """Follow a `$ref`, and what it leads to without a step into a value.

        `$ref` and `allOf` say that the very same value is described elsewhere, and so do `anyOf`
        and `oneOf` of one member. A schema that is reached again by these alone describes no value.

        Args:
            where: Of the schema.
            schema: Has a `$ref`; it lives as long as these references do.
            root: What `#` means.

        Raises:
            ApiError: 400, the reference is circular or its chain too long.
        """
        if (id(root), id(schema)) in self._lengths:
            return
        way = [_Followed(schema, _same_value(schema, root))]
        on_the_way = {id(schema)}
        while way:
            last = way[-1]
            target = next(last.targets, None)
            if target is None:
                way.pop()
                on_the_way.remove(id(last.schema))
                self._lengths[id(root), id(last.schema)] = length = last.length
                if way:
                    way[-1].length = max(way[-1].length, length + 1)
                continue
            if id(target) in on_the_way:
                raise _useless(where, f"the reference {schema['$ref']!r} leads back to itself")
            length = self._lengths.get((id(root), id(target)), 0)
            if len(way) + max(length, 1) > LONGEST_CHAIN:
                raise _useless(where, f"the reference leads over more than {LONGEST_CHAIN} others")
            if length:
                last.length = max(last.length, length + 1)
            else:
                on_the_way.add(id(target))
                way.append(_Followed(target, _same_value(target, root)))


def _same_value(schema: Mapping[str, Any], root: Any) -> Iterator[Mapping[str, Any]]:
    reference = schema.get("$ref")
    if isinstance(reference, str) and isinstance(target := resolve(reference, root), dict):
        yield target
    for keyword in ("allOf", "anyOf", "oneOf"):
        members = schema.get(keyword)
        if isinstance(members, list) and (keyword == "allOf" or len(members) == 1):
            yield from (member for member in members if isinstance(member, dict))


def resolve(reference: str, root: Any) -> Any:
    """What a JSON pointer behind `#` names, `None` for nothing."""
    if reference == "#":
        return root
    if not reference.startswith("#/"):
        return None
    value = root
    for part in reference[2:].split("/"):
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(value, dict):
            value = value.get(name)
        elif isinstance(value, list) and name.isdecimal() and len(name) < len("1000000"):
            value = value[int(name)] if int(name) < len(value) else None
        else:
            return None
    return value


def _useless(where: Path, reason: str) -> ApiError:
    field = dotted(where)
    return ApiError(400, f"{field}.$ref: {reason}"[:500], param=field, code="invalid_value")
