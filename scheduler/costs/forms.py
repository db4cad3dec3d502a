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

from collections.abc import Callable, Mapping, Sequence
from typing import Any

# Where the cost of a step bends between its value alone and that in a large batch. Around it all
# experts of a mixture are in use (with 8 of 128, half of the experts are read at 11 sequences), and
# kernels for few rows give way to those for many.
BEND = 16.0

Polynomial = tuple[float, float, float, float, float, float]
"""Of a cost at a known load: what 1, tin, tout, tin tout, tout² and tin² are multiplied by."""

# What a term has of the tokens: places in a `Polynomial`, and how much of it goes there.
_TOKENS: Mapping[str, tuple[tuple[int, float], ...]] = {
    "1": ((0, 1.0),),
    "tin": ((1, 1.0),),
    "tout": ((2, 1.0),),
    "tin*tout": ((3, 1.0),),
    # Tokens attended to while decoding: the sum over the generated tokens of the context so far.
    "ctx": ((3, 1.0), (4, 0.5)),
    # Tokens attended to while the prompt is computed, twice over.
    "tin²": ((5, 1.0),),
}
# What it has of c requests side by side: each waits for the others' tokens, the more of them, the
# less each adds, and pays its share of what a step costs however many are in it.
_LOADS: Mapping[str, Callable[[float], float]] = {
    "": lambda c: 1.0,
    "*c": lambda c: c,
    "*√c": lambda c: c**0.5,
    "*bend": lambda c: c / (c + BEND),
    "/c": lambda c: 1 / c,
    "/√c": lambda c: 1 / c**0.5,
    "/bend": lambda c: 1 / (c + BEND),
}
_TERMS: Mapping[str, tuple[tuple[tuple[int, float], ...], str]] = {
    tokens + load: (places, load) for tokens, places in _TOKENS.items() for load in _LOADS
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


def term_value(name: str, tin: Any, tout: Any, c: Any) -> Any:
    """What a term of a form is for a request, before its coefficient; numbers or arrays of them."""
    places, load = _TERMS[name]
    powers = (1.0, tin, tout, tin * tout, tout * tout, tin * tin)
    return sum(share * powers[place] for place, share in places) * _LOADS[load](c)


def terms_of(
    form: str, coefficients: Sequence[float], tin: float, tout: float, c: float
) -> list[float]:
    """What each term adds to the cost of a request, in the order of the form."""
    return [
        k * term_value(name, tin, tout, c)
        for name, k in zip(ALL_FORMS[form], coefficients, strict=True)
    ]


def at_load(form: str, coefficients: Sequence[float], c: float, scale: float = 1.0) -> Polynomial:
    """The costs of all requests that meet the same load.

    Args:
        form: Key of `ALL_FORMS`.
        coefficients: One per term.
        c: Requests side by side.
        scale: Of all of it.
    """
    loads: dict[str, float] = {}
    cost = [0.0] * 6
    for k, name in zip(coefficients, ALL_FORMS[form], strict=True):
        places, load = _TERMS[name]
        if load not in loads:
            loads[load] = _LOADS[load](c) * scale
        for place, share in places:
            cost[place] += share * k * loads[load]
    one, tin, tout, both, tout2, tin2 = cost
    return one, tin, tout, both, tout2, tin2


def cost_of(polynomial: Polynomial, tin: float, tout: float) -> float:
    """What a request costs."""
    k, k_in, k_out, k_both, k_out2, k_in2 = polynomial
    return k + tin * (k_in + k_in2 * tin) + tout * (k_out + k_both * tin + k_out2 * tout)
