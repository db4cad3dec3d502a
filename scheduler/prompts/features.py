"""What can be read off a prompt without understanding it: counts, and hashed words.

Everything is computed on the UTF-8 bytes with numpy, so that the same few array operations serve
every script, take the same time for every content, and give the same numbers in a fit and in a
router. Of a long prompt only the beginning and the end are read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

HEAD_CHARS = 3000
TAIL_CHARS = 1000
HASH_BITS = 16
BUCKETS = 1 << HASH_BITS

Floats = NDArray[np.float64]
Bytes = NDArray[np.uint8]
Hashes = NDArray[np.uint64]

_CATEGORIES: dict[str, str] = {
    "common": "the of and to a in is that for it as was with be by on he his but at are this have "
    "from or had an they one you were all her she there would their we him been has will more if "
    "out so up said its about than into them can only other some could these may first then do my "
    "now over such our me even most made after also did many before must through where your way "
    "should because long each just those people too",
    "negation": "not no never none except cannot neither nor without false incorrect wrong",
    "relation": "each every per half third quarter twice double triple times more less fewer than "
    "total remaining left rest average ratio percent",
    "question": "who what when where which how why whose whom",
    "auxiliary": "is are do does did can could would should was were has have will",
    "instruction": "write find compute calculate evaluate determine simplify solve translate "
    "summarize explain list describe name give prove implement create generate convert extract",
    "condition": "let suppose consider if assume given when",
    "code": "def return import function class int str array list string code python java sql html "
    "javascript bash regex algorithm script program",
    "mathematics": "equation integer integers polynomial angle triangle probability sum product "
    "function derivative integral matrix vector prime real positive number numbers value root",
    "choice": "following statement statements true false correct answer best likely",
}
_SYMBOLS = "$=\\{([\"?_,.:`<%+/*^|'-;>#!"
_FIRST_WORDS = [
    "who",
    "what",
    "when",
    "where",
    "which",
    "how",
    "why",
    "write",
    "find",
    "if",
    "the",
    "a",
    "in",
]

_OPTION_MARKS = frozenset(bytes([mark]) for mark in b"ABCDEFGHIJabcdefghij123456789")
_OPTION_ENDS = frozenset((b".", b")", b":"))
_ANY_DIGIT = re.compile(rb"[0-9]")
_SPACE = np.zeros(256, dtype=bool)
_SPACE[list(b" \t\r\n")] = True
_DIGIT = np.zeros(256, dtype=bool)
_DIGIT[48:58] = True
_UPPER = np.zeros(256, dtype=bool)
_UPPER[65:91] = True
_LOWERED = np.arange(256, dtype=np.uint8)
_LOWERED[65:91] += 32
# Letters, digits and every byte of a character beyond ASCII.
_IN_WORD = np.zeros(256, dtype=bool)
_IN_WORD[48:58] = _IN_WORD[65:91] = _IN_WORD[97:123] = _IN_WORD[128:] = True
# The first byte of a character of three or four bytes: scripts such as Chinese put no space
# between words, so each of their characters counts as one.
_WIDE = np.zeros(256, dtype=bool)
_WIDE[0xE0:] = True

# Quotation marks, dashes, arrows and signs beyond ASCII: they part words as an apostrophe does.
_TYPOGRAPHY = re.compile(rb"\xe2[\x80-\xbf]{2}")

_GROUPS = np.stack(
    [
        _DIGIT,
        _UPPER,
        _SPACE,
        np.isin(np.arange(256), [10]),
        # Characters beyond ASCII, by their first bytes.
        np.arange(256) >= 0xC0,
        ~_IN_WORD & ~_SPACE,
        *(np.arange(256) == ord(symbol) for symbol in _SYMBOLS),
    ],
    axis=1,
).astype(np.float64)

# A word's hash is the sum of its bytes times powers of an odd number modulo 2**64. Taken over the
# whole text at once, with the powers of the place in it, the difference of two running sums is the
# hash times the power of the word's place, which its inverse takes away.
_MAX_BYTES = 4 * (HEAD_CHARS + TAIL_CHARS) + 4
_MODULUS = 1 << 64
_PRIME = 1099511628211


def _powers(base: int) -> Hashes:
    powers = [1]
    for _ in range(_MAX_BYTES):
        powers.append(powers[-1] * base % _MODULUS)
    return np.array(powers, dtype=np.uint64)


_POWERS = _powers(_PRIME)
_INVERSES = _powers(pow(_PRIME, -1, _MODULUS))
_LETTERS = _LOWERED.astype(np.uint64) + np.uint64(1)
_MIX = np.uint64(0x9E3779B97F4A7C15)
_NEXT_WORD = np.uint64(0xC2B2AE3D27D4EB4F)
_PREFIX_SALT = np.uint64(0x165667B19E3779F9)
_SUFFIX_SALT = np.uint64(0x27D4EB2F165667C5)
EDGE_BYTES = 4
_FINE_BITS = 20
_FINE_SHIFT = np.uint64(64 - _FINE_BITS)


@dataclass(frozen=True, slots=True)
class TextFeatures:
    """A prompt in numbers.

    Attributes:
        counts: `COUNT_NAMES` long; logarithms of counts, shares and yes or no.
        words: Buckets of its words, in `0..BUCKETS`; a word that stands there twice counts twice.
        terms: Buckets of its words, of each pair of neighbours, and of the first and the last
            bytes of the longer words; ascending, each once.
        frequencies: How often each of the terms stands there.
    """

    counts: Floats
    words: NDArray[np.int64]
    terms: NDArray[np.int64]
    frequencies: NDArray[np.int64]


def extract(text: str) -> TextFeatures:
    """The features of a prompt in any script, of any length, also of an empty one."""
    length = len(text)
    if length > HEAD_CHARS + TAIL_CHARS:
        text = f"{text[:HEAD_CHARS]}\n{text[-TAIL_CHARS:]}"
    # Lone surrogates can come out of JSON.
    encoded = text.encode("utf-8", "replace")
    if b"\xe2" in encoded:
        encoded = _TYPOGRAPHY.sub(b"'", encoded)
    raw = np.frombuffer(encoded, dtype=np.uint8)
    starts, ends = _words(raw)
    sums = _running_sums(raw)
    hashes = _hashes(sums, starts, ends)
    fine = _fine_buckets(hashes)
    longer = np.flatnonzero(ends - starts > EDGE_BYTES)
    first, last = starts[longer], ends[longer] - EDGE_BYTES
    others = _fine_buckets(
        np.concatenate(
            (
                hashes[:-1] * _NEXT_WORD + hashes[1:],
                _hashes(sums, first, first + EDGE_BYTES) + _PREFIX_SALT,
                _hashes(sums, last, last + EDGE_BYTES) + _SUFFIX_SALT,
            )
        )
    )
    words = fine >> (_FINE_BITS - HASH_BITS)
    terms, frequencies = _tally(np.concatenate((words, others >> (_FINE_BITS - HASH_BITS))))
    counts = _counts(encoded, (length, len(terms)), (starts, ends), hashes, fine)
    return TextFeatures(counts, words, terms, frequencies)


def _tally(buckets: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which there are, ascending, and how often each. `numpy.unique` takes twice as long."""
    buckets.sort()
    edges = np.flatnonzero(np.concatenate(([True], buckets[1:] != buckets[:-1], [True])))
    if len(buckets) == 0:
        return buckets, buckets
    return buckets[edges[:-1]], edges[1:] - edges[:-1]


def _words(raw: Bytes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where words start and end (exclusive)."""
    inside = np.zeros(len(raw) + 2, dtype=bool)
    inside[1:-1] = _IN_WORD.take(raw)
    wide = _WIDE.take(raw)
    if not wide.any():
        edges = np.flatnonzero(inside[1:] != inside[:-1])
        return edges[::2], edges[1::2]
    # A wide character is a word by itself: it starts one, and so does what follows it.
    character = np.cumsum((raw < 0x80) | (raw >= 0xC0)) - 1
    wide_character = wide[(raw < 0x80) | (raw >= 0xC0)][character]
    begins = np.diff(character, prepend=-1) > 0
    after_wide = np.concatenate(([False], wide_character[:-1])) & begins
    first = inside[1:-1] & (~inside[:-2] | wide | after_wide)
    starts = np.flatnonzero(first)
    stops = np.flatnonzero(~inside[1:])
    ends = np.minimum(np.append(starts[1:], len(raw)), stops[np.searchsorted(stops, starts)])
    return starts, ends


def _running_sums(raw: Bytes) -> Hashes:
    sums = np.zeros(len(raw) + 1, dtype=np.uint64)
    np.cumsum(_LETTERS.take(raw) * _POWERS[: len(raw)], out=sums[1:])
    return sums


def _hashes(sums: Hashes, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> Hashes:
    """A 64-bit hash of the bytes of each span, without regard to ASCII case."""
    return (sums[ends] - sums[starts]) * _INVERSES[starts]


def _fine_buckets(hashes: Hashes) -> NDArray[np.int64]:
    mixed = hashes * _MIX
    mixed ^= mixed >> np.uint64(29)
    mixed *= _MIX
    return (mixed >> _FINE_SHIFT).astype(np.int64)


def _hash_texts(words: Iterable[str]) -> Hashes:
    sums = [_running_sums(np.frombuffer(word.encode(), dtype=np.uint8))[-1] for word in words]
    return np.array(sums, dtype=np.uint64)


def _category_table() -> tuple[NDArray[np.int16], Hashes, Floats]:
    """By fine bucket the row of a known word; by row its hash and the categories it belongs to.

    The last row is that of all words that are not known.
    """
    words = sorted({word for text in _CATEGORIES.values() for word in text.split()})
    member = [[word in text.split() for text in _CATEGORIES.values()] for word in words]
    hashes = _hash_texts(words)
    rows = np.full(1 << _FINE_BITS, len(words), dtype=np.int16)
    rows[_fine_buckets(hashes)] = np.arange(len(words))
    nothing = np.zeros((1, len(_CATEGORIES)))
    return rows, np.append(hashes, np.uint64(0)), np.vstack((np.array(member), nothing))


_ROWS, _KNOWN, _MEMBER = _category_table()
_FIRST = _hash_texts(_FIRST_WORDS)

COUNT_NAMES: Sequence[str] = (
    "characters",
    "distinct terms",
    "words",
    "longest word",
    "numbers",
    "longest number",
    "decimals",
    "options",
    "mean option",
    "range of options",
    "digits in options",
    "before options",
    "longest line",
    "capitalized words",
    *(f"count of {n}" for n in ("digits", "capitals", "spaces", "lines", "beyond ASCII", "signs")),
    *(f"count of {symbol}" for symbol in _SYMBOLS),
    *(f"{name} words" for name in _CATEGORIES),
    "mean word",
    *(f"share of {n}" for n in ("digits", "capitals", "spaces", "lines", "beyond ASCII", "signs")),
    *(f"share of {name} words" for name in _CATEGORIES),
    *(f"begins with {word}" for word in _FIRST_WORDS),
    "begins small",
    "begins large",
    "ends with ?",
    "ends with .",
    "ends with :",
)


def _counts(
    encoded: bytes,
    sizes: tuple[int, int],
    spans: tuple[NDArray[np.int64], NDArray[np.int64]],
    hashes: Hashes,
    fine: NDArray[np.int64],
) -> Floats:
    raw = np.frombuffer(encoded, dtype=np.uint8)
    starts, ends = spans
    groups = np.bincount(raw, minlength=256) @ _GROUPS
    number = len(starts)
    if number:
        rows = _ROWS[fine]
        # Another word may fall into the bucket of a known one.
        rows[_KNOWN[rows] != hashes] = len(_KNOWN) - 1
        categories = np.bincount(rows, minlength=len(_KNOWN)) @ _MEMBER
        longest, mean = int((ends - starts).max()), int((ends - starts).sum()) / number
        capitalized = int(np.count_nonzero(_UPPER[raw[starts[1:]]]))
        begins = hashes[0] == _FIRST
        begin = int(raw[starts[0]])
    else:
        categories = np.zeros(len(_CATEGORIES))
        longest = mean = capitalized = begin = 0
        begins = np.zeros(len(_FIRST_WORDS))
    tail = encoded[-4:].rstrip()[-1:]
    counts = np.empty(len(COUNT_NAMES))
    parts = (
        (*sizes, number, longest, *_numbers(raw)),
        (*_options(encoded), capitalized),
        groups,
        categories,
    )
    end = 0
    for part in parts:
        counts[end : end + len(part)] = part
        end += len(part)
    np.log1p(counts[:end], out=counts[:end])
    ending = (tail == b"?", tail == b".", tail == b":")
    begin_shape = (97 <= begin < 123, 65 <= begin < 91)
    shares = (groups[:6] / max(len(raw), 1), categories / max(number, 1))
    counts[end:] = np.concatenate(((mean,), *shares, begins, begin_shape, ending))
    return counts


def _numbers(raw: Bytes) -> tuple[int, int, int]:
    """How many runs of digits, the length of the longest, and how many decimal points."""
    digit = np.zeros(len(raw) + 2, dtype=bool)
    digit[1:-1] = _DIGIT.take(raw)
    edges = np.flatnonzero(digit[1:] != digit[:-1])
    if len(edges) == 0:
        return 0, 0, 0
    first, end = edges[::2], edges[1::2]
    points = np.count_nonzero((first[1:] == end[:-1] + 1) & (raw[end[:-1]] == _POINT))
    return len(first), int((end - first).max()), int(points)


_POINT = ord(".")


def _options(encoded: bytes) -> tuple[float, float, float, float, float, float]:
    """Lines such as `A. yes` and `2) no`.

    Returns:
        How many, their mean length, longest less shortest, how many hold a digit, bytes before
        the first, and the longest line.
    """
    lines = encoded.split(b"\n")
    longest = max(map(len, lines))
    # Few lines: a list is quicker than arrays.
    found = [line for line in lines if line[1:2] in _OPTION_ENDS and line[:1] in _OPTION_MARKS]
    found = [line for line in found if len(line) > 2]
    if not found:
        return 0, 0, 0, 0, len(encoded), longest
    lengths = [len(line) for line in found]
    before = encoded.find(b"\n" + found[0]) + 1
    with_digits = sum(_ANY_DIGIT.search(line, 2) is not None for line in found)
    mean = sum(lengths) / len(lengths)
    return len(found), mean, max(lengths) - min(lengths), with_digits, before, longest
