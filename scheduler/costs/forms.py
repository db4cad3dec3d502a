"""Terms and forms of a request's cost: how seconds and joules follow from tokens and load.

The forms `engine` and `shares` follow how an engine with continuous batching works. A decode step
costs what it costs once (the weights are read, the kernels are launched) plus what every sequence
adds to it (its cache is read, its token is computed), and it yields one token to every sequence. A
request takes part in as many steps as it generates tokens, and pays its share of their energy. Its
prompt is computed once; the others wait meanwhile, as it waits for theirs. Every term is a cost
that cannot be negative, so no coefficient is, and costs rise with tokens.

The others are plain regressions, such as the one that the project began with (`linear`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

# Where the cost of a step bends between its value alone and that in a large batch. Around it all
# experts of a mixture are in use (with 8 of 128, half of the experts are read at 11 sequences), and
# kernels for few rows give way to those for many.
BEND = 16.0

TERMS: Mapping[str, Callable[[float, float, float], float]] = {
    "1": lambda tin, tout, c: 1.0,
    "tin": lambda tin, tout, c: tin,
    "tout": lambda tin, tout, c: tout,
    "tin*tout": lambda tin, tout, c: tin * tout,
    # Tokens attended to while decoding: the sum over the generated tokens of the context so far.
    "ctx": lambda tin, tout, c: tout * (tin + tout / 2),
    # Tokens attended to while the prompt is computed, twice over.
    "tin²": lambda tin, tout, c: tin * tin,
    # c requests side by side: each waits for the others' tokens ...
    "tin*c": lambda tin, tout, c: tin * c,
    "tout*c": lambda tin, tout, c: tout * c,
    "ctx*c": lambda tin, tout, c: tout * (tin + tout / 2) * c,
    "tin²*c": lambda tin, tout, c: tin * tin * c,
    # ... the more of them, the less each adds ...
    "tout*√c": lambda tin, tout, c: tout * c**0.5,
    "tout*bend": lambda tin, tout, c: tout * c / (c + BEND),
    # ... and pays its share of what a step costs however many are in it.
    "1/c": lambda tin, tout, c: 1 / c,
    "tin/c": lambda tin, tout, c: tin / c,
    "tout/c": lambda tin, tout, c: tout / c,
    "tout/√c": lambda tin, tout, c: tout / c**0.5,
    "tout/bend": lambda tin, tout, c: tout / (c + BEND),
}

_BASES: Mapping[str, tuple[str, ...]] = {
    "linear": ("1", "tin", "tout"),
    "interaction": ("1", "tin", "tout", "tin*tout"),
    "context": ("1", "tin", "tout", "ctx"),
}
FORMS: Mapping[str, tuple[str, ...]] = {
    **_BASES,
    **{f"{name}+load": (*terms, "tin*c", "tout*c") for name, terms in _BASES.items()},
    **{f"{name}+shared": (*terms, "1/c", "tin/c", "tout/c") for name, terms in _BASES.items()},
}
ENGINE, SHARES = "engine", "shares"
ENGINE_FORMS: Mapping[str, tuple[str, ...]] = {
    # Seconds of a request.
    ENGINE: ("1", "tin", "tout", "tout*bend", "tout*√c", "tout*c", "ctx*c", "tin*c", "tin²*c"),
    # Joules of a request: those of the steps that it took part in, shared by all in them.
    SHARES: ("1", "tin", "tout", "tout/bend", "tout/√c", "tout/c", "ctx", "tin²"),
}
ALL_FORMS: Mapping[str, tuple[str, ...]] = {**FORMS, **ENGINE_FORMS}


def _engine(k: Sequence[float], tin: float, tout: float, c: float) -> float:
    step = k[3] * c / (c + BEND) + k[4] * math.sqrt(c) + c * (k[5] + k[6] * (tin + tout / 2))
    return tout * step + tin * c * (k[7] + k[8] * tin)


def _shares(k: Sequence[float], tin: float, tout: float, c: float) -> float:
    step = k[3] / (c + BEND) + k[4] / math.sqrt(c) + k[5] / c + k[6] * (tin + tout / 2)
    return tout * step + k[7] * tin * tin


# What `ALL_FORMS` says of the terms after "1", "tin", "tout", with which every form begins, written
# out: looking each term up would take a decision over many models twice as long.
LATER_TERMS: Mapping[str, Callable[[Sequence[float], float, float, float], float]] = {
    "interaction": lambda k, tin, tout, c: k[3] * tin * tout,
    "context": lambda k, tin, tout, c: k[3] * tout * (tin + tout / 2),
    "linear+load": lambda k, tin, tout, c: (k[3] * tin + k[4] * tout) * c,
    "interaction+load": lambda k, tin, tout, c: k[3] * tin * tout + (k[4] * tin + k[5] * tout) * c,
    "context+load": lambda k, tin, tout, c: (
        k[3] * tout * (tin + tout / 2) + (k[4] * tin + k[5] * tout) * c
    ),
    "linear+shared": lambda k, tin, tout, c: (k[3] + k[4] * tin + k[5] * tout) / c,
    "interaction+shared": lambda k, tin, tout, c: (
        k[3] * tin * tout + (k[4] + k[5] * tin + k[6] * tout) / c
    ),
    "context+shared": lambda k, tin, tout, c: (
        k[3] * tout * (tin + tout / 2) + (k[4] + k[5] * tin + k[6] * tout) / c
    ),
    ENGINE: _engine,
    SHARES: _shares,
}


def terms_of(
    form: str, coefficients: Sequence[float], tin: float, tout: float, c: float
) -> list[float]:
    """What each term adds to the cost of a request, in the order of the form."""
    return [
        k * TERMS[name](tin, tout, c) for name, k in zip(ALL_FORMS[form], coefficients, strict=True)
    ]
