"""Fitted profiles and their JSON: the only contract between profiling and serving.

Text in, values out. Reading and writing files is the caller's business.
"""

from __future__ import annotations

import hashlib
import json
import math
import reprlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

from scheduler.costs.checks import (
    as_tuple,
    check_amount,
    check_count,
    check_figure,
    check_range,
    check_text,
    errors_at,
    is_finite,
    is_number,
)
from scheduler.costs.forms import ALL_FORMS, Polynomial, at_load, cost_of, terms_of
from scheduler.costs.priors.origins import ORIGINS
from scheduler.errors import ProfileError
from scheduler.preferences import Metric

SCHEMA_VERSION = 3
_TEXTS = ("model", "accelerator", "energy_source", "accuracy_source", "source", "origin")
_TOO_DEEP = "not a profile set: nested too deeply"
_RANGES = ("input_tokens_range", "output_tokens_range", "concurrency_range")


@dataclass(frozen=True, slots=True)
class LinearModel:
    """A regression of one cost on token counts and on the requests that run side by side.

    Attributes:
        form: Key of `ALL_FORMS`.
        coefficients: One per term of the form; seconds or joules per unit of the term.
        standard_errors: Same order; empty where the estimator gives none.
        estimator: How the coefficients were found (`ols`, `nnls`, `nnls_relative`,
            `huber`, `map`, or `roofline` without any trial).
        n: Rows of the fit.
        r2: On the rows of the fit.
        mape: Mean absolute percentage error on the rows of the fit, as a fraction.
        heldout_mape: The same on rows that the fit did not see, `None` where there were none.
        ratio_low: 5 % quantile of actual/predicted, out of sample where possible.
        ratio_high: 95 % quantile of the same.
        log_covariance: Of the logarithms of the coefficients, row by row; empty where the
            estimator gives none.
        log_variance: What it makes of the logarithm of a prediction on the rows of the fit, on
            average, which is part of the two ratios.
    """

    form: str
    coefficients: tuple[float, ...]
    standard_errors: tuple[float, ...] = ()
    estimator: str = "ols"
    n: int = 0
    r2: float | None = None
    mape: float | None = None
    heldout_mape: float | None = None
    ratio_low: float = 1.0
    ratio_high: float = 1.0
    log_covariance: tuple[tuple[float, ...], ...] = ()
    log_variance: float = 0.0

    def __post_init__(self) -> None:
        check_text("form", self.form)
        if self.form not in ALL_FORMS:
            raise ProfileError(f"form: unknown {self.form!r}, known: {', '.join(ALL_FORMS)}")
        if len(self.coefficients) != len(ALL_FORMS[self.form]):
            raise ProfileError(
                f"coefficients: form {self.form!r} has {len(ALL_FORMS[self.form])} terms, "
                f"got {len(self.coefficients)}"
            )
        if not all(map(is_finite, self.coefficients)):
            raise ProfileError(
                f"coefficients: must be finite numbers, got {reprlib.repr(self.coefficients)}"
            )
        errors = self.standard_errors
        if len(errors) not in (0, len(self.coefficients)) or not all(map(is_number, errors)):
            raise ProfileError(
                f"standard_errors: must be {len(self.coefficients)} numbers, or none, "
                f"got {reprlib.repr(errors)}"
            )
        check_text("estimator", self.estimator)
        check_count("n", self.n)
        for name in ("r2", "mape", "heldout_mape"):
            check_figure(name, getattr(self, name))
        ratios = (self.ratio_low, self.ratio_high)
        if not all(map(is_finite, ratios)) or ratios[0] > ratios[1]:
            raise ProfileError(
                "ratio_low, ratio_high: must be finite and in this order, "
                f"got {reprlib.repr(self.ratio_low)} and {reprlib.repr(self.ratio_high)}"
            )
        check_amount("log_variance", self.log_variance)
        size = len(self.coefficients) if self.log_covariance else 0
        rows = self.log_covariance
        if len(rows) != size or any(len(r) != size or not all(map(is_finite, r)) for r in rows):
            raise ProfileError(
                f"log_covariance: must have {len(self.coefficients)} rows of as many finite "
                "numbers, or none"
            )

    def predict(self, input_tokens: float, output_tokens: float, concurrency: float = 1.0) -> float:
        """The cost of a request, in the unit of the coefficients. May be negative: see caller.

        Args:
            input_tokens: Prompt tokens.
            output_tokens: Generated tokens.
            concurrency: Requests side by side on the replica, this one included; 1 or more.
        """
        return cost_of(self.at_load(concurrency), input_tokens, output_tokens)

    def at_load(self, concurrency: float, scale: float = 1.0) -> Polynomial:
        """What it says of all requests that meet the same load, `scale` times as much."""
        return at_load(self.form, self.coefficients, concurrency, scale)

    def uncertainty(
        self, input_tokens: float, output_tokens: float, concurrency: float = 1.0
    ) -> float:
        """Variance of the logarithm of the prediction beyond what the two ratios hold already.

        The share that each term has in the prediction says how much of that term's uncertainty it
        has: far from the trials other terms count, which only a prior holds.
        """
        if not self.log_covariance:
            return 0.0
        request = (input_tokens, output_tokens, concurrency)
        parts = terms_of(self.form, self.coefficients, *request)
        total = sum(parts)
        if not 0 < total < math.inf:
            return 0.0
        variance = sum(
            a * b * c
            for a, row in zip(parts, self.log_covariance, strict=True)
            for b, c in zip(parts, row, strict=True)
        )
        return max(variance / total**2 - self.log_variance, 0.0)

    def scaled(self, factor: float) -> LinearModel:
        """The same shape, `factor` times as much.

        Raises:
            ProfileError: The factor is not finite.
        """
        return replace(
            self,
            coefficients=tuple(c * factor for c in self.coefficients),
            standard_errors=tuple(e * factor for e in self.standard_errors),
        )


@dataclass(frozen=True)
class ModelProfile:
    """What one model costs on one kind of accelerator.

    Attributes:
        accelerator: Kind of device (`NVIDIA A100-SXM4-80GB`, `cpu`), as the replicas report it.
        runtime: Seconds from token counts.
        energy: Joules from token counts.
        energy_source: `nvml`, `nvml_power`, `rapl` or `cpu_time`; `roofline` where it was computed.
        input_tokens_range: Smallest and largest prompt that was profiled.
        output_tokens_range: Smallest and largest generation that was profiled.
        concurrency_range: Fewest and most requests side by side that were profiled.
        mean_output_tokens: Generated tokens of a usual answer, the guess without a request's own.
        accuracy: Share of right answers, `None` where it was never measured.
        accuracy_source: What measured the accuracy.
        source: What measured the costs, and where.
        origin: One of `scheduler.costs.priors.origins.ORIGINS`; empty where the file does not say.
    """

    model: str
    accelerator: str
    runtime: LinearModel
    energy: LinearModel
    energy_source: str
    input_tokens_range: tuple[int, int]
    output_tokens_range: tuple[int, int]
    concurrency_range: tuple[float, float] = (1, 1)
    mean_output_tokens: float = 128.0
    accuracy: float | None = None
    accuracy_source: str = ""
    source: str = ""
    origin: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        for name in _TEXTS:
            check_text(name, getattr(self, name))
        for name in _RANGES:
            check_range(name, getattr(self, name))
        check_amount("mean_output_tokens", self.mean_output_tokens)
        if self.accuracy is not None:
            check_amount("accuracy", self.accuracy, most=1)
        if self.origin and self.origin not in ORIGINS:
            raise ProfileError(
                f"origin: must be one of {', '.join(ORIGINS)} or empty, got {self.origin!r}"
            )

    @cached_property
    def fit_id(self) -> str:
        """Names the two regressions: what was learnt about others says nothing about these."""
        return _digest([asdict(self.runtime), asdict(self.energy)])


@dataclass(frozen=True, slots=True)
class Moments:
    """Mean and population standard deviation of one metric."""

    mean: float
    std: float

    def __post_init__(self) -> None:
        if not is_finite(self.mean):
            raise ProfileError(f"mean: must be a finite number, got {reprlib.repr(self.mean)}")
        check_amount("std", self.std)


@dataclass(frozen=True, slots=True)
class Reference:
    """Fixed yardsticks for the policy `utility`, taken over all models and trials of a fit."""

    runtime_s: Moments
    energy_joules: Moments
    accuracy_cost: Moments

    def __getitem__(self, metric: Metric) -> Moments:
        """The yardstick of one metric."""
        return {
            Metric.TIME: self.runtime_s,
            Metric.ENERGY: self.energy_joules,
            Metric.ACCURACY: self.accuracy_cost,
        }[metric]


@dataclass(frozen=True)
class ProfileSet:
    """Profiles of all models, named by the hash of their content."""

    profiles: tuple[ModelProfile, ...]
    reference: Reference | None = None
    source: str = ""
    schema_version: int = field(default=SCHEMA_VERSION, init=False)

    def __post_init__(self) -> None:
        check_text("source", self.source)
        keys = [(p.model, p.accelerator) for p in self.profiles]
        for key in keys:
            if keys.count(key) > 1:
                raise ProfileError(f"profiles: {key[0]!r} on {key[1]!r} stands there twice")

    @cached_property
    def version(self) -> str:
        """First 16 hex digits of the SHA-256 of the canonical JSON."""
        return _digest(self._content())

    def find(self, model: str, accelerator: str | None = None) -> ModelProfile | None:
        """The profile of a model on an accelerator; on any one if none is named."""
        for profile in self.profiles:
            if profile.model == model and accelerator in (None, profile.accelerator):
                return profile
        return None

    def merged(self, newer: ProfileSet) -> ProfileSet:
        """This set with the profiles of `newer` in the place of its own, or added to them."""
        replaced = {(p.model, p.accelerator) for p in newer.profiles}
        kept = tuple(p for p in self.profiles if (p.model, p.accelerator) not in replaced)
        return ProfileSet(
            profiles=kept + newer.profiles,
            reference=newer.reference or self.reference,
            source=newer.source or self.source,
        )

    def _content(self) -> dict[str, Any]:
        return {
            "schema_version": self.schema_version,
            "source": self.source,
            "reference": asdict(self.reference) if self.reference else None,
            "profiles": [asdict(p) for p in self.profiles],
        }

    def to_json(self) -> str:
        """The file, human-readable, hash included."""
        return json.dumps({"version": self.version, **self._content()}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> ProfileSet:
        """Read what `to_json` wrote.

        Raises:
            ProfileError: With the name of the field that is wrong.
        """
        try:
            data = json.loads(text)
        except ValueError as error:
            raise ProfileError(f"not JSON, or cut off: {error}") from error
        except RecursionError as error:
            raise ProfileError(_TOO_DEEP) from error
        if not isinstance(data, dict):
            raise ProfileError(f"must be a JSON object, got {type(data).__name__}")
        schema = data.get("schema_version")
        if type(schema) is not int or not 1 <= schema <= SCHEMA_VERSION:
            raise ProfileError(
                f"schema_version: this program reads 1 to {SCHEMA_VERSION}, "
                f"got {reprlib.repr(schema)}"
            )
        if "profiles" not in data:
            raise ProfileError("profiles: missing")
        profiles = as_tuple("profiles", data["profiles"])
        result = cls(
            profiles=tuple(_profile(p, f"profiles[{i}]") for i, p in enumerate(profiles)),
            reference=_reference(data.get("reference")),
            source=data.get("source", ""),
        )
        # Over what is there, not over what was understood: older files have fewer fields.
        stated = data.pop("version", None)
        try:
            actual = _digest(data)
        except RecursionError as error:
            raise ProfileError(_TOO_DEEP) from error
        if stated not in (None, actual):
            raise ProfileError(
                f"version: says {reprlib.repr(stated)}, the content hashes to {actual}"
            )
        return result


def _digest(content: Any) -> str:
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def _pair(name: str, values: Any) -> tuple[int, int]:
    check_range(name, values)
    low, high = values
    return int(low), int(high)


def _span(name: str, values: Any) -> tuple[float, float]:
    check_range(name, values)
    low, high = values
    # Whole numbers stay whole, so that the content hashes to what it did.
    return (low if type(low) is int else float(low)), (high if type(high) is int else float(high))


def _linear(data: Mapping[str, Any], place: str) -> LinearModel:
    with errors_at(place):
        covariance = as_tuple("log_covariance", data.get("log_covariance", ()))
        return LinearModel(
            **{
                **data,
                "coefficients": as_tuple("coefficients", data["coefficients"]),
                "standard_errors": as_tuple("standard_errors", data.get("standard_errors", ())),
                "log_covariance": tuple(as_tuple("log_covariance", row) for row in covariance),
            }
        )


def _profile(data: Mapping[str, Any], place: str) -> ModelProfile:
    with errors_at(place):
        return ModelProfile(
            **{
                **data,
                "runtime": _linear(data["runtime"], "runtime"),
                "energy": _linear(data["energy"], "energy"),
                "input_tokens_range": _pair("input_tokens_range", data["input_tokens_range"]),
                "output_tokens_range": _pair("output_tokens_range", data["output_tokens_range"]),
                "concurrency_range": _span(
                    "concurrency_range", data.get("concurrency_range", (1, 1))
                ),
            }
        )


def _reference(data: Mapping[str, Any] | None) -> Reference | None:
    if data is None:
        return None
    with errors_at("reference"):
        return Reference(**{name: _moments(name, moments) for name, moments in data.items()})


def _moments(name: str, data: Mapping[str, Any]) -> Moments:
    with errors_at(name):
        return Moments(**data)
