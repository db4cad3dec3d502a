"""The operator's rules: conditions on a request, and what is done to its decision where they hold.

Rules are read in their order; the first that fits ends the search unless it says that it goes on.
Everything a rule may look at is in `Facts`, the time included, so that every ruling can be
replayed. What is wrong with rules is found by `checks`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from functools import cached_property

from scheduler.preferences import Constraints, Weights
from scheduler.rules.expressions import Expression

DAY_MINUTES = 24 * 60


@dataclass(frozen=True, slots=True)
class Window:
    """A time of day, over midnight where it ends before it begins.

    Attributes:
        zone: Whose clock is meant.
        start: Minute of the day that it begins with.
        end: Minute of the day that is no longer in it.
        days: Weekdays that it may begin on, Monday is 0; none means all.
    """

    zone: tzinfo
    start: int = 0
    end: int = DAY_MINUTES
    days: frozenset[int] = frozenset()

    def holds(self, now: datetime) -> bool:
        """Whether a moment, which knows its time zone, lies in it."""
        local = now.astimezone(self.zone)
        minute, day = local.hour * 60 + local.minute, local.weekday()
        if self.start < self.end:
            inside = self.start <= minute < self.end
        elif minute < self.end:
            inside, day = True, (day - 1) % 7
        else:
            inside = minute >= self.start
        return inside and (not self.days or day in self.days)


@dataclass(frozen=True)
class Facts:
    """What rules may look at.

    Attributes:
        text: Of all messages or prompts, empty where no rule asks for it.
        task: Task class of the prompt.
        input_tokens: The most that any model counts.
        language: ISO 639 code, empty where it is unknown or no rule asks for it.
        headers: Names in lower case and values of the HTTP request's.
        key: Name of the API key, `None` without one.
        now: The moment, with its time zone.
        unavailable: Models that cannot take requests; those that are not there are available.
    """

    text: str
    task: str
    input_tokens: int
    now: datetime
    language: str = ""
    headers: Sequence[tuple[bytes, bytes]] = ()
    key: str | None = None
    unavailable: frozenset[str] = frozenset()

    @cached_property
    def encoded(self) -> bytes:
        """The text as UTF-8, once for all rules."""
        return self.text.encode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class Conditions:
    """All of those that are given must hold; of several values of one, any.

    Attributes:
        text: Found in the text.
        headers: Name in lower case, and what one value of it must match as a whole.
        unavailable: At least one of these models cannot take requests.
        available: At least one of these models can.
    """

    tasks: frozenset[str] = frozenset()
    least_input_tokens: int = 0
    most_input_tokens: int | None = None
    languages: frozenset[str] = frozenset()
    text: Expression | None = None
    headers: tuple[tuple[bytes, Expression], ...] = ()
    keys: frozenset[str] = frozenset()
    window: Window | None = None
    unavailable: frozenset[str] = frozenset()
    available: frozenset[str] = frozenset()

    def hold(self, facts: Facts) -> bool:
        """Whether a request fits; the text, which takes longest, is searched last."""
        most = self.most_input_tokens
        return (
            (not self.tasks or facts.task in self.tasks)
            and facts.input_tokens >= self.least_input_tokens
            and (most is None or facts.input_tokens <= most)
            and (not self.keys or facts.key in self.keys)
            and (not self.languages or facts.language in self.languages)
            and (not self.unavailable or not self.unavailable.isdisjoint(facts.unavailable))
            and (not self.available or not self.available <= facts.unavailable)
            and (self.window is None or self.window.holds(facts.now))
            and all(_has_header(facts, *header) for header in self.headers)
            and (self.text is None or self.text.found_in(facts.encoded))
        )


def _has_header(facts: Facts, name: bytes, value: Expression) -> bool:
    return any(name == theirs and value.matches(given) for theirs, given in facts.headers)


@dataclass(frozen=True, slots=True)
class Rule:
    """What holds where, by the operator's will.

    Attributes:
        when: No conditions hold always.
        require: The only models that may answer; empty for all.
        exclude: Models that may not.
        prefer: One of these answers where one can.
        weights: Of a request that names none, or of every one if `override`.
        policy: The same.
        constraints: Hold in addition to those of the request.
        goes_on: Later rules are looked at too.
    """

    name: str
    when: Conditions = field(default_factory=Conditions)
    require: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    prefer: tuple[str, ...] = ()
    weights: Weights | None = None
    policy: str | None = None
    constraints: Constraints | None = None
    override: bool = False
    goes_on: bool = False

    def bars(self, model: str) -> str | None:
        """Why a model may not answer, `None` where it may."""
        if model in self.exclude:
            return f"rule {self.name!r} excludes it"
        if self.require and model not in self.require:
            return f"rule {self.name!r} requires {' or '.join(self.require)}"
        return None


@dataclass(frozen=True, slots=True)
class Ruling:
    """What the rules say of one request.

    Attributes:
        rules: Those that fit, in their order. Each bars models and adds constraints; of
            preferences, weights and policies the first one given counts.
    """

    rules: tuple[Rule, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Of the rules that fit."""
        return tuple([rule.name for rule in self.rules])

    @property
    def preferred(self) -> tuple[str, ...]:
        """Models of which one answers if any can."""
        return next((rule.prefer for rule in self.rules if rule.prefer), ())

    def bars(self, model: str) -> str | None:
        """Why a model may not answer, `None` where it may."""
        return next((why for rule in self.rules if (why := rule.bars(model))), None)

    def weights(self, asked: Weights | None, usual: Weights) -> Weights:
        """Those that count: of a rule, of the request, or the usual ones."""
        for rule in self.rules:
            if rule.weights is not None and (asked is None or rule.override):
                return rule.weights
        return asked or usual

    def policy(self, asked: str | None, usual: str) -> str:
        """The one that counts, as for weights."""
        for rule in self.rules:
            if rule.policy is not None and (asked is None or rule.override):
                return rule.policy
        return asked or usual

    def constraints(self, asked: Constraints) -> Constraints:
        """The request's and those of all rules: of each limit the tightest."""
        for rule in self.rules:
            if rule.constraints is not None:
                asked = asked.together_with(rule.constraints)
        return asked

    @property
    def constraining(self) -> tuple[str, ...]:
        """Names of the rules that added constraints."""
        return tuple(rule.name for rule in self.rules if rule.constraints is not None)


NO_RULING = Ruling()


def apply_rules(rules: Sequence[Rule], facts: Facts) -> Ruling:
    """The rules that fit: up to the first that does not go on."""
    fitting: list[Rule] = []
    for rule in rules:
        if rule.when.hold(facts):
            fitting.append(rule)
            if not rule.goes_on:
                break
    return Ruling(tuple(fitting)) if fitting else NO_RULING
