"""Costs of a model from its card and its accelerator's data sheet, before any trial: a roofline.

The time of a decode step is bounded by what the memory delivers (weights once, the cache of every
sequence) and by what the units compute (Williams, Waterman and Patterson, "Roofline: an insightful
visual performance model for multicore architectures", 2009), each at the share of the data sheet's
figure that engines reach, plus what launching, communicating and the host take. Here the parts are
added, not overlapped, which keeps the costs linear in the terms of `scheduler.costs.forms`; the
efficiencies are fitted to that sum. Energy is power times time: a share of the board's power for
every second, and more for the seconds in which memory or units are busy.

Pure: values in, values out. `scheduler.costs.priors.accelerators` reads the table.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scheduler.costs.forms import ALL_FORMS, BEND, ENGINE, SHARES, term_value
from scheduler.costs.priors.model_card import ModelCard
from scheduler.costs.priors.origins import MODEL_CARD
from scheduler.costs.profiles import LinearModel, ModelProfile
from scheduler.errors import ModelCardError
from scheduler.types import NORMAL_90

ROOFLINE = "roofline"
# Standard deviations of the logarithms of the coefficients, apart from a factor that all have. How
# a step's cost follows its batch differs most from engine to engine.
BATCH_SPREAD, TOKEN_SPREAD = 1.0, 0.5
_BATCH_TERMS = frozenset(
    ("tout", "tout*bend", "tout*√c", "tout*c", "tout/bend", "tout/√c", "tout/c")
)
# A term that the prior leaves out has this share of the cost of such a request, so that trials can
# bring it in: input tokens, output tokens, requests side by side.
LEAST_SHARE = 0.02
# The same of terms that grow with the square of the tokens: a share of a short request's cost would
# be most of a long one's.
LEAST_SQUARE_SHARE = 2e-4
_SQUARES = frozenset(("tin*tout", "ctx", "ctx*c", "tin²", "tin²*c"))
_USUAL = (256.0, 256.0, 16.0)
USUAL_OUTPUT_TOKENS = 256.0
# Sequences side by side at which the weights that a mixture reads are matched by the terms.
_BATCHES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)


@dataclass(frozen=True, slots=True)
class Efficiencies:
    """What an engine reaches of a data sheet.

    Attributes:
        bandwidth: Share of the memory bandwidth while weights and cache are read.
        compute: Share of the peak operations while tokens are computed.
        narrow: Further share of the peak operations with numbers of fewer than 16 bits.
        narrow_experts: Further share of the bandwidth for experts of fewer than 16 bits.
        layer_s: Seconds per layer and step, whatever the batch: launching kernels.
        link_s: Further seconds per layer and step for each doubling of the tensor parallel degree.
        bend_s: Seconds per step that come with the first sequences, see `forms.BEND`.
        sequence_s: Seconds per sequence and step: scheduling, sampling, detokenizing.
        request_s: Seconds per request.
        static_power: Share of the board's power that is drawn while the device works at all.
        memory_power: Share of it that reading memory adds.
        compute_power: Share of it that computing adds.
        host_power: Share of it that is added while the host is waited for.
        runtime_spread: Standard deviation of the logarithm of actual over predicted seconds, of a
            model that the fit has not seen.
        energy_spread: The same of joules.
    """

    bandwidth: float
    compute: float
    narrow: float
    narrow_experts: float
    layer_s: float
    link_s: float
    bend_s: float
    sequence_s: float
    request_s: float
    static_power: float
    memory_power: float
    compute_power: float
    host_power: float
    runtime_spread: float
    energy_spread: float


@dataclass(frozen=True, slots=True)
class Accelerator:
    """A device as its data sheet has it.

    Attributes:
        bandwidth: Bytes per second of its memory.
        flops: Dense operations per second by width of the numbers in bits.
        idle_w: Watts of a device that holds a model and does nothing.
        board_w: Watts at most.
        note: What is assumed rather than known, empty where nothing is.
    """

    name: str
    bandwidth: float
    flops: dict[int, float]
    idle_w: float
    board_w: float
    efficiencies: Efficiencies
    note: str = ""

    def width(self, bits: int) -> int:
        """Width of its units that compute numbers of so many bits: the next wider one it has."""
        return min((width for width in self.flops if width >= bits), default=max(self.flops))

    def operations(self, bits: int) -> float:
        """Operations per second that an engine reaches with numbers of so many bits.

        Engines may compute narrow numbers in 16 bits, so these take no longer than wide ones.
        """
        width = self.width(bits)
        narrow = self.efficiencies.narrow if width < 16 else 1.0
        reached = max(self.flops[width] * narrow, self.flops[self.width(max(bits, 16))])
        return reached * self.efficiencies.compute


@dataclass(frozen=True, slots=True)
class PriorCosts:
    """Coefficients of the forms `engine` and `shares`, and how far off they may be.

    Attributes:
        runtime: Seconds per unit of each term of `engine`.
        energy: Joules per unit of each term of `shares`.
        runtime_spread: Standard deviation of the logarithm of actual over predicted.
        energy_spread: The same of joules.
    """

    runtime: tuple[float, ...]
    energy: tuple[float, ...]
    runtime_spread: float
    energy_spread: float


def spreads_of(form: str) -> tuple[float, ...]:
    """How far the shape of a prior may be off, for each term of a form."""
    return tuple(BATCH_SPREAD if t in _BATCH_TERMS else TOKEN_SPREAD for t in ALL_FORMS[form])


def without_zeros(form: str, coefficients: Sequence[float]) -> tuple[float, ...]:
    """The coefficients, with a small one in the place of each that is 0.

    Raises:
        ModelCardError: All of them are 0.
    """
    usual = [term_value(term, *_USUAL) for term in ALL_FORMS[form]]
    total = sum(k * x for k, x in zip(coefficients, usual, strict=True))
    if not 0 < total < math.inf:
        raise ModelCardError(f"coefficients: must predict a cost above 0, got {coefficients!r}")
    least = [LEAST_SQUARE_SHARE if t in _SQUARES else LEAST_SHARE for t in ALL_FORMS[form]]
    return tuple(
        max(k, share * total / x) for k, share, x in zip(coefficients, least, usual, strict=True)
    )


def card_profile(
    model: str, card: ModelCard, accelerator: Accelerator, tensor_parallel: int = 1, name: str = ""
) -> ModelProfile:
    """The profile of a model that has no trial yet, by its card.

    Args:
        model: Its id.
        card: Of it.
        accelerator: Kind of device.
        tensor_parallel: Devices that share the weights.
        name: What replicas call the device; the table's name where empty.

    Raises:
        ModelCardError: As `predict_from_card`.
    """
    costs = predict_from_card(card, accelerator, tensor_parallel)
    devices = f"{tensor_parallel} x " if tensor_parallel > 1 else ""
    source = f"computed from the model card and the data sheet of {devices}{accelerator.name}"
    return ModelProfile(
        model=model,
        accelerator=name or accelerator.name,
        runtime=_guess(ENGINE, costs.runtime, costs.runtime_spread),
        energy=_guess(SHARES, costs.energy, costs.energy_spread),
        energy_source=ROOFLINE,
        # What the efficiencies were fitted on; beyond it the intervals widen term by term.
        input_tokens_range=(1, 1 << 20),
        output_tokens_range=(1, 1 << 20),
        concurrency_range=(1, 4096),
        mean_output_tokens=USUAL_OUTPUT_TOKENS,
        source=f"{source}; {accelerator.note}" if accelerator.note else source,
        origin=MODEL_CARD,
    )


def _guess(form: str, coefficients: tuple[float, ...], spread: float) -> LinearModel:
    # The spread is that of requests like those of the fit: short prompts, long answers. What
    # prompts and contexts cost is less well known.
    variances = [0.0 if t in _BATCH_TERMS else TOKEN_SPREAD**2 for t in ALL_FORMS[form]]
    size = range(len(variances))
    reach = math.exp(NORMAL_90 * spread)
    return LinearModel(
        form=form,
        coefficients=coefficients,
        estimator=ROOFLINE,
        ratio_low=1 / reach,
        ratio_high=reach,
        log_covariance=tuple(tuple(variances[i] if i == j else 0.0 for j in size) for i in size),
    )


@dataclass(frozen=True, slots=True)
class _Parts:
    """Seconds of one kind of work: by step, by its batch and by token; see `predict_from_card`."""

    fixed: float = 0.0
    bend: float = 0.0
    root: float = 0.0
    sequence: float = 0.0
    context: float = 0.0
    prefill: float = 0.0
    attention: float = 0.0
    request: float = 0.0


def predict_from_card(
    card: ModelCard,
    accelerator: Accelerator,
    tensor_parallel: int = 1,
    *,
    above_idle: bool = True,
) -> PriorCosts:
    """Coefficients from a model card.

    Args:
        card: Of the model.
        accelerator: Kind of device.
        tensor_parallel: Devices that share the weights.
        above_idle: Energy above that of idle devices, as this project counts it; else all of it.

    Raises:
        ModelCardError: The tensor parallel degree is not 1 or more.
    """
    if tensor_parallel < 1:
        raise ModelCardError(f"tensor_parallel: must be 1 or more, got {tensor_parallel!r}")
    reached = accelerator.efficiencies
    memory = _memory(card, accelerator, tensor_parallel)
    operations = accelerator.operations(card.compute_bits) * tensor_parallel
    compute = _Parts(
        sequence=2 * card.activated / operations,
        context=card.attention_flops / operations,
        prefill=2 * card.activated / operations,
        attention=card.attention_flops / 2 / operations,
    )
    host = _Parts(
        fixed=card.layers * (reached.layer_s + reached.link_s * math.log2(tensor_parallel)),
        bend=reached.bend_s,
        sequence=reached.sequence_s,
        request=reached.request_s,
    )
    works = (memory, compute, host)
    runtime = (
        sum(w.request for w in works),
        0.0,
        sum(w.fixed for w in works),
        sum(w.bend for w in works),
        sum(w.root for w in works),
        sum(w.sequence for w in works),
        sum(w.context for w in works),
        sum(w.prefill for w in works),
        sum(w.attention for w in works),
    )
    idle = accelerator.idle_w if above_idle else 0.0
    board = accelerator.board_w * tensor_parallel
    static = max(reached.static_power * board - idle * tensor_parallel, 0.02 * board)
    watts = [
        static + board * share
        for share in (reached.memory_power, reached.compute_power, reached.host_power)
    ]

    def joules(name: str) -> float:
        return sum(
            power * float(getattr(work, name)) for power, work in zip(watts, works, strict=True)
        )

    energy = (
        joules("request"),
        joules("prefill"),
        joules("sequence"),
        joules("bend"),
        joules("root"),
        joules("fixed"),
        joules("context"),
        joules("attention"),
    )
    return PriorCosts(runtime, energy, reached.runtime_spread, reached.energy_spread)


def _memory(card: ModelCard, accelerator: Accelerator, tensor_parallel: int) -> _Parts:
    reached = accelerator.efficiencies
    bandwidth = accelerator.bandwidth * reached.bandwidth
    seconds = card.weight_bytes / (bandwidth * tensor_parallel)
    cache = card.cache_bytes / (bandwidth * min(tensor_parallel, card.cache_copies))
    fixed = card.always_read * seconds
    if not card.expert_parameters:
        return _Parts(fixed=fixed, context=cache)
    if accelerator.width(card.compute_bits) < 16:
        # No longer than experts of 16 bits take.
        seconds *= min(1 / reached.narrow_experts, max(2 / card.weight_bytes, 1.0))
    experts = [(card.weights_read(c) - card.always_read) * seconds + fixed for c in _BATCHES]
    once, bend, root = _match(experts)
    return _Parts(fixed=once, bend=bend, root=root, context=cache)


def _match(values: Sequence[float]) -> tuple[float, float, float]:
    """Non-negative weights of 1, c/(c + BEND) and √c with the least relative error at `_BATCHES`.

    Three terms are few enough to try every set of them that may be above 0.
    """
    rows = [
        [1 / v, c / (c + BEND) / v, math.sqrt(c) / v] for c, v in zip(_BATCHES, values, strict=True)
    ]
    best, least = (max(values), 0.0, 0.0), math.inf
    for used in ((0,), (1,), (0, 1), (0, 2), (1, 2), (0, 1, 2)):
        solved = _least_squares([[row[i] for i in used] for row in rows])
        if solved is None or min(solved) < 0:
            continue
        weights = [0.0, 0.0, 0.0]
        for i, w in zip(used, solved, strict=True):
            weights[i] = w
        error = sum((sum(w * x for w, x in zip(weights, r, strict=True)) - 1) ** 2 for r in rows)
        if error < least:
            best, least = (weights[0], weights[1], weights[2]), error
    return best


def _least_squares(rows: Sequence[Sequence[float]]) -> list[float] | None:
    """Weights whose sums over the rows are nearest to 1, by the normal equations."""
    size = len(rows[0])
    matrix = [
        [sum(r[i] * r[j] for r in rows) for j in range(size)] + [sum(r[i] for r in rows)]
        for i in range(size)
    ]
    for i in range(size):
        if matrix[i][i] <= 0:
            return None
        for j in range(size):
            if j != i:
                ratio = matrix[j][i] / matrix[i][i]
                matrix[j] = [a - ratio * b for a, b in zip(matrix[j], matrix[i], strict=True)]
    return [matrix[i][size] / matrix[i][i] for i in range(size)]
