"""Which models can take a request at all, before and after their costs are predicted."""

from __future__ import annotations

from collections.abc import Iterable

from scheduler.costs.output_length import expected_output_tokens
from scheduler.costs.predict import Contender
from scheduler.costs.profiles import ModelProfile
from scheduler.errors import InvalidRequestError
from scheduler.exclusions import Exclusion, ExclusionKind
from scheduler.types import ClusterState, ModelState, RoutingRequest


def eligible_models(
    request: RoutingRequest, state: ClusterState
) -> tuple[list[Contender], list[Exclusion]]:
    """Split the models into those that can take the request and those that cannot, with reasons.

    The prompt must leave room for one generated token in the context. Where it does so in none,
    the model with the longest context stays in: the count may be an estimate, and the engine that
    serves the model has the last word.

    Raises:
        InvalidRequestError: `routing.models` is empty or names a model that does not exist, or a
            model has no token count.
    """
    requested = _requested(request, state)
    barred = request.barred
    fitting: list[Contender] = []
    too_short: list[Contender] = []
    excluded: list[Exclusion] = []
    for model in state.models:
        name = model.model
        if requested is not None and name not in requested:
            excluded.append(
                Exclusion(name, ExclusionKind.NOT_REQUESTED, "not among routing.models")
            )
        elif name in barred:
            excluded.append(Exclusion(name, ExclusionKind.RULE, barred[name]))
        elif model.unavailable is not None:
            excluded.append(Exclusion(name, ExclusionKind.UNAVAILABLE, model.unavailable))
        elif model.profile is None:
            reason = "has no profile yet, so only requests that name it can use it"
            excluded.append(Exclusion(name, ExclusionKind.NO_PROFILE, reason))
        else:
            contender = contend(request, model, model.profile)
            limit = model.max_model_len
            fits = limit is None or contender.prompt_tokens + 1 <= limit
            (fitting if fits else too_short).append(contender)
    if too_short and not fitting:
        longest = max(too_short, key=_context)
        too_short.remove(longest)
        fitting.append(longest)
    excluded += map(_out_of_context, too_short)
    return fitting, excluded


def contend(request: RoutingRequest, model: ModelState, profile: ModelProfile) -> Contender:
    """A model with the token counts of this request.

    Raises:
        InvalidRequestError: The request has no count of input tokens for it.
    """
    try:
        input_tokens = request.input_tokens[model.model]
    except KeyError:
        raise InvalidRequestError(
            "input_tokens", f"no token count for model {model.model!r}"
        ) from None
    # Each prompt has a context of its own.
    prompt_tokens = input_tokens if request.prompts == 1 else -(-input_tokens // request.prompts)
    output_tokens = expected_output_tokens(request, model, profile, prompt_tokens)
    if not request.cached or (cached := request.cached.get(model.model)) is None:
        return Contender(request, model, profile, input_tokens, output_tokens)
    cached_tokens = min(cached.tokens, input_tokens)
    return Contender(request, model, profile, input_tokens, output_tokens, cached_tokens)


def unknown_models(names: Iterable[str], state: ClusterState) -> str:
    """The message for names that no model has."""
    known = ", ".join(model.model for model in state.models) or "none"
    return f"unknown model {', '.join(map(repr, names))}, known: {known}"


def _requested(request: RoutingRequest, state: ClusterState) -> frozenset[str] | None:
    if request.models is None:
        return None
    if not request.models:
        raise InvalidRequestError("routing.models", "must name at least one model")
    known = {model.model for model in state.models}
    if unknown := [name for name in request.models if name not in known]:
        raise InvalidRequestError("routing.models", unknown_models(unknown, state))
    return frozenset(request.models)


def _context(contender: Contender) -> int:
    return contender.model.max_model_len or 0


def _out_of_context(contender: Contender) -> Exclusion:
    return Exclusion(
        contender.model.model,
        ExclusionKind.CONTEXT_LENGTH,
        f"a prompt of {contender.prompt_tokens} tokens leaves no room for an answer in its context "
        f"of {contender.model.max_model_len}",
    )
