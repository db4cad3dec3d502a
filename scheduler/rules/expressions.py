"""Regular expressions whose time grows with the text and with nothing else: RE2's.

It has no backreferences and no lookaround, since these are what makes other engines run away.
Source: Cox 2010, "Regular Expression Matching in the Wild".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import re2

_OPTIONS = re2.Options()
# The error is raised; on standard error it would stand a second time, without its place.
_OPTIONS.log_errors = False
_ANYTHING = frozenset({".*", "(?s).*"})


@dataclass(frozen=True, slots=True)
class Expression:
    """A regular expression in RE2's syntax, over UTF-8; equal where its source is.

    Raises:
        ValueError: It is none; with what is wrong and where.
    """

    source: str
    _compiled: Any = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        try:
            compiled = re2.compile(self.source.encode(), options=_OPTIONS)
        except (re2.error, UnicodeEncodeError) as error:
            message = error.args[0]
            text = message.decode(errors="replace") if isinstance(message, bytes) else str(error)
            raise ValueError(f"no regular expression of RE2: {text}") from error
        object.__setattr__(self, "_compiled", compiled)

    @property
    def takes_everything(self) -> bool:
        """Certainly fits every text; `False` where that is not known."""
        return self.source in _ANYTHING

    def found_in(self, text: bytes) -> bool:
        """Whether any part of a text matches."""
        return self._compiled.search(text) is not None

    def matches(self, text: bytes) -> bool:
        """Whether a text as a whole matches."""
        return self._compiled.fullmatch(text) is not None
