"""Which models can take a request at all, before and after their costs are predicted."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from scheduler.capabilities import Refusal
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

    Prompt and `max_tokens` must fit into the context, and where there is no `max_tokens`, the
    prompt and one token. Where an estimated prompt does so in none, the model with the longest
    context stays in: the engine that serves the model has the last word.

    A model whose engine rejected such a request lately, or whose chat template leaves a part of it
    out, stays in only where no other model is left.

    Raises:
        InvalidRequestError: `routing.models` is empty or names a model that does not exist, or a
            model has no token count.
    """
    requested = _requested(request, state)
    barred = request.barred
    # Most requests need nothing that a model could lack.
    demanding = bool(request.needs or request.refused)
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
        elif demanding and (refusal := incapable(request, model)):
            excluded.append(_incapable(name, refusal))
        elif model.unavailable is not None:
            excluded.append(Exclusion(name, ExclusionKind.UNAVAILABLE, model.unavailable))
        elif model.profile is None:
            reason = "has no profile yet, so only requests that name it can use it"
            excluded.append(Exclusion(name, ExclusionKind.NO_PROFILE, reason))
        else:
            contender = contend(request, model, model.profile)
            (fitting if _fits(contender) else too_short).append(contender)
    if too_short and not fitting:
        longest = max(too_short, key=_context)
        if longest.model.model in request.estimated_inputs and not _surely_over(longest):
            too_short.remove(longest)
            fitting.append(longest)
    excluded += map(_out_of_context, too_short)
    if request.doubted:
        fitting = _without(fitting, excluded, lambda c: request.doubted.get(c.model.model))
    if request.needs:
        fitting = _without(fitting, excluded, lambda c: c.model.capabilities.neglect(request.needs))
    return fitting, excluded


def incapable(request: RoutingRequest, model: ModelState) -> Refusal | None:
    """What a model lacks for a request, `None` where it lacks nothing as far as is known."""
    name = model.model
    if refusal := request.refused.get(name):
        return refusal
    rendered = name in request.input_tokens and name not in request.estimated_inputs
    return model.capabilities.refusal(request.needs, rendered=rendered)


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


def _without(
    contenders: list[Contender],
    excluded: list[Exclusion],
    objection: Callable[[Contender], Refusal | None],
) -> list[Contender]:
    """Those that nothing speaks against, or all where something speaks against each of them."""
    objections = [(contender, objection(contender)) for contender in contenders]
    kept = [contender for contender, refusal in objections if refusal is None]
    if not kept:
        return contenders
    excluded += [_incapable(c.model.model, refusal) for c, refusal in objections if refusal]
    return kept


def _incapable(model: str, refusal: Refusal) -> Exclusion:
    return Exclusion(model, ExclusionKind.CAPABILITY, refusal.reason, field=refusal.field)


def _context(contender: Contender) -> int:
    return contender.model.max_model_len or 0


def _fits(contender: Contender) -> bool:
    limit = contender.model.max_model_len
    return limit is None or contender.prompt_tokens + (contender.request.max_tokens or 1) <= limit


def _surely_over(contender: Contender) -> bool:
    """Whether not even a prompt of one token would leave room for `max_tokens`."""
    limit = contender.model.max_model_len
    return limit is not None and 1 + (contender.request.max_tokens or 1) > limit


def _out_of_context(contender: Contender) -> Exclusion:
    request, limit = contender.request, contender.model.max_model_len or 0
    left = limit - contender.prompt_tokens
    if left < 1:
        field, what = request.prompt_field, "leaves no room for an answer"
    else:
        field = request.max_tokens_field
        what = f"leaves {left} of the {request.max_tokens} tokens of {field}"
    reason = f"a prompt of {contender.prompt_tokens} tokens {what} in its context of {limit}"
    return Exclusion(contender.model.model, ExclusionKind.CONTEXT_LENGTH, reason, field=field)
