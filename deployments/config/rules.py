"""`rules` of the router's `user_config`: the operator's rules, typed, and as the scheduler's."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, TypeVar, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
    ValidatorFunctionWrapHandler,
    model_validator,
)
from pydantic_core import PydanticCustomError

from deployments.config.base import NESTED, Strict, describe_errors
from deployments.config.policies import PolicyName
from scheduler.errors import InvalidRequestError
from scheduler.preferences import Constraints, Weights
from scheduler.prompts.language import known_languages
from scheduler.rules.expressions import Expression
from scheduler.rules.rules import Conditions, Rule, Window

Kind = TypeVar("Kind", Weights, Constraints)

MAX_RULES = 200
MAX_EXPRESSION = 2_000
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
_DAYS: tuple[Day, ...] = get_args(Day)
_CLOCK = re.compile(r"(?:[01]?[0-9]|2[0-3]):[0-5][0-9]|24:00")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _regex(source: str) -> str:
    Expression(source)
    return source


def _clock(value: Any) -> Any:
    # YAML reads 22:00 without quotes as a number of base 60.
    if not isinstance(value, str) or not _CLOCK.fullmatch(value):
        raise ValueError("must be a time of day in quotes, such as '22:00'")
    return value


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError("no IANA time zone that this machine knows") from error
    return name


def _language(code: str) -> str:
    if code not in known_languages():
        raise ValueError("no ISO 639 code of a language that is recognized, such as 'de'")
    return code


def _header(name: str) -> str:
    if not _HEADER.fullmatch(name):
        raise ValueError("no name of a header")
    return name.lower()


Name = Annotated[str, Field(min_length=1, max_length=200)]
Names = Annotated[tuple[Name, ...], Field(min_length=1), BeforeValidator(_listed)]
Languages = Annotated[
    tuple[Annotated[str, AfterValidator(_language)], ...],
    Field(min_length=1),
    BeforeValidator(_listed),
]
Regex = Annotated[str, Field(max_length=MAX_EXPRESSION), AfterValidator(_regex)]
Clock = Annotated[str, BeforeValidator(_clock)]


class InputTokens(Strict):
    """Both ends are included."""

    min: NonNegativeInt = 0
    max: PositiveInt | None = None

    @model_validator(mode="after")
    def _ordered(self) -> InputTokens:
        if self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}")
        return self


class TimeOfDay(Strict):
    """From one time of day to before another, over midnight where that is earlier."""

    zone: Annotated[str, AfterValidator(_zone)] = "UTC"
    days: Annotated[tuple[Day, ...], BeforeValidator(_listed)] = Field(
        default=_DAYS, min_length=1, description="That it begins on."
    )
    begin: Clock = Field(default="00:00", alias="from")
    end: Clock = Field(default="24:00", alias="to")

    @model_validator(mode="after")
    def _not_empty(self) -> TimeOfDay:
        if _minutes(self.begin) == _minutes(self.end):
            raise ValueError(f"from and to are both {self.begin}")
        if _minutes(self.begin) == 24 * 60:
            raise ValueError("from must be before 24:00")
        return self

    def window(self) -> Window:
        """The same for the scheduler."""
        days = frozenset(map(_DAYS.index, self.days))
        return Window(
            ZoneInfo(self.zone),
            _minutes(self.begin),
            _minutes(self.end),
            days if len(days) < len(_DAYS) else frozenset(),
        )


def _minutes(clock: str) -> int:
    hours, minutes = clock.split(":")
    return int(hours) * 60 + int(minutes)


class When(Strict):
    """All of those that are named must hold; of several values of one, any."""

    task: Names | None = None
    input_tokens: InputTokens | None = None
    language: Languages | None = None
    text: Regex | None = Field(default=None, description="Found in the text of the request.")
    header: dict[Annotated[str, AfterValidator(_header)], Regex] = Field(
        default_factory=dict, description="Names, and what one value matches as a whole."
    )
    key: Names | None = Field(default=None, description="Names of API keys.")
    time: TimeOfDay | None = None
    available: Names | None = Field(default=None, description="One of these models can answer.")
    unavailable: Names | None = Field(default=None, description="One of these models cannot.")

    def conditions(self) -> Conditions:
        """The same for the scheduler."""
        tokens = self.input_tokens or InputTokens()
        return Conditions(
            tasks=frozenset(self.task or ()),
            least_input_tokens=tokens.min,
            most_input_tokens=tokens.max,
            languages=frozenset(self.language or ()),
            text=None if self.text is None else Expression(self.text),
            headers=tuple((k.encode(), Expression(v)) for k, v in self.header.items()),
            keys=frozenset(self.key or ()),
            window=self.time.window() if self.time else None,
            available=frozenset(self.available or ()),
            unavailable=frozenset(self.unavailable or ()),
        )


class RuleWeights(Strict):
    """Costs that are not named weigh nothing, as in a request."""

    accuracy: float = 0.0
    energy: float = 0.0
    time: float = 0.0

    @model_validator(mode="after")
    def _usable(self) -> RuleWeights:
        _as_the_scheduler_has_it(Weights, self)
        return self


class RuleConstraints(Strict):
    """Hard limits, as in a request."""

    max_latency_s: float | None = None
    max_energy_joules: float | None = None
    min_accuracy: float | None = None
    confidence: float | None = None

    @model_validator(mode="after")
    def _usable(self) -> RuleConstraints:
        _as_the_scheduler_has_it(Constraints, self)
        return self


def _as_the_scheduler_has_it(kind: type[Kind], given: Strict | None) -> Kind | None:
    if given is None:
        return None
    try:
        return kind(**given.model_dump())
    except InvalidRequestError as error:
        raise ValueError(str(error).rpartition("routing.")[2]) from error


class Then(Strict):
    """What is done; nothing is allowed, and keeps later rules away."""

    require: Names | None = Field(default=None, description="The only models that may answer.")
    exclude: Names | None = Field(default=None, description="Models that may not.")
    prefer: Names | None = Field(default=None, description="One of these answers where one can.")
    weights: RuleWeights | None = None
    policy: PolicyName | None = None
    constraints: RuleConstraints | None = None
    override: bool = Field(
        default=False, description="`weights` and `policy` count against the request's own too."
    )


class RuleConfig(Strict):
    """One rule."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._ -]{0,63}$")
    when: When = Field(default_factory=When, description="Nothing: always.")
    then: Then = Field(default_factory=Then)
    goes_on: bool = Field(
        default=False, alias="continue", description="Later rules are looked at too."
    )

    @model_validator(mode="wrap")
    @classmethod
    def _named_in_errors(cls, data: Any, handler: ValidatorFunctionWrapHandler) -> RuleConfig:
        try:
            rule: RuleConfig = handler(data)
        except ValidationError as error:
            name = data.get("name") if isinstance(data, dict) else None
            # Braces would be fields of the template.
            context = {"rule": repr(name)[:80], "errors": describe_errors(error)}
            raise PydanticCustomError(NESTED, "rule {rule}: {errors}", context) from error
        return rule

    def rule(self) -> Rule:
        """The same for the scheduler."""
        then = self.then
        return Rule(
            name=self.name,
            when=self.when.conditions(),
            require=then.require or (),
            exclude=then.exclude or (),
            prefer=then.prefer or (),
            weights=_as_the_scheduler_has_it(Weights, then.weights),
            policy=then.policy,
            constraints=_as_the_scheduler_has_it(Constraints, then.constraints),
            override=then.override,
            goes_on=self.goes_on,
        )
