"""Which language a text is in, by CLD2's tables of letter sequences. No I/O."""

from __future__ import annotations

import re
from functools import lru_cache

import pycld2

READ_CHARS = 2_000
"""Only so much of the beginning is read: about 50 us."""

# CLD2 takes only what can stand in a document.
_NO_TEXT = re.compile(
    "[^\t\n\r\x20-\x7e\xa0-\ud7ff\ue000-\ufdcf\ufdf0-\ufffd\U00010000-\U0001fffd]"
)
_RENAMED = {"iw": "he", "jw": "jv", "mo": "ro", "un": ""}
# Of CLD2's list: scripts, joke languages and names for "none" are no languages.
_CODE = re.compile(r"(?!xxx?$|zz)[a-z]{2,3}")
_FIRST_BEYOND_LATIN = "\u0370"


def language_of(text: str) -> str:
    """Its ISO 639 code, such as `de`; empty where a few words or none leave it open."""
    start = text[:READ_CHARS]
    try:
        return _detect(start)
    except pycld2.error:
        return _detect(_NO_TEXT.sub(" ", start))


def _detect(text: str) -> str:
    # A few words of Latin letters get any language; another script says much by itself.
    guess = max(text, default="") >= _FIRST_BEYOND_LATIN
    encoded = text.encode("utf-8", "replace")
    _, _, details = pycld2.detect(encoded, isPlainText=True, bestEffort=guess)
    return _plain(str(details[0][1]))


def _plain(code: str) -> str:
    code = code.partition("-")[0]
    return _RENAMED.get(code, code)


@lru_cache(maxsize=1)
def known_languages() -> frozenset[str]:
    """All codes that `language_of` may give."""
    codes = {_plain(code) for _, code in pycld2.LANGUAGES}
    return frozenset(code for code in codes if _CODE.fullmatch(code))
