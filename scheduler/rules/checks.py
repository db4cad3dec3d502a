"""What the operator should know of the rules: those that contradict, and those that never fit.

A rule that is written wrongly is an error and never gets here. What is found here can be meant:
models come and go, and a client may name any task.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from scheduler.rules.rules import Conditions, Rule, Window


@dataclass(frozen=True, slots=True)
class KnownNames:
    """What there is.

    Attributes:
        models: Ids of the models.
        tasks: The classes that prompts are sorted into.
        keys: Names of the API keys, `None` where they are not known.
    """

    models: Collection[str]
    tasks: Collection[str]
    keys: Collection[str] | None = None


def check_rules(rules: Sequence[Rule], known: KnownNames) -> list[str]:
    """One sentence for each thing that looks wrong, with the rule and its field."""
    found: list[str] = []
    for place, rule in enumerate(rules):
        sayings = (*_unknown(rule, known), *_contradictions(rule, known))
        found += [f"rule {rule.name!r}: {saying}" for saying in sayings]
        for earlier in rules[:place]:
            if not earlier.goes_on and covers(earlier.when, rule.when):
                found.append(
                    f"rule {rule.name!r}: never fits, rule {earlier.name!r} before it takes "
                    "every request that it is for"
                )
                break
    return found


def _unknown(rule: Rule, known: KnownNames) -> Iterator[str]:
    when = rule.when
    for field, names in (
        ("when.available", sorted(when.available)),
        ("when.unavailable", sorted(when.unavailable)),
        ("then.require", rule.require),
        ("then.exclude", rule.exclude),
        ("then.prefer", rule.prefer),
    ):
        if unknown := [name for name in names if name not in known.models]:
            yield f"{field}: no model {_quoted(unknown)}, known: {', '.join(known.models)}"
    for field, strangers in (
        ("when.unavailable", when.unavailable),
        ("when.available", when.available),
    ):
        if strangers and strangers.isdisjoint(known.models):
            yield f"{field}: never fits, it names no model that there is"
    if unknown := sorted(when.tasks.difference(known.tasks)):
        yield (
            f"when.task: no prompt is found to be {_quoted(unknown)}, only requests that name the "
            f"task themselves fit; known: {', '.join(known.tasks)}"
        )
    if known.keys is not None and (unknown := sorted(when.keys.difference(known.keys))):
        never = ", never fits" if when.keys.isdisjoint(known.keys) else ""
        yield f"when.key: no API key is named {_quoted(unknown)}{never}"


def _contradictions(rule: Rule, known: KnownNames) -> Iterator[str]:
    both = [name for name in rule.require if name in rule.exclude]
    if both:
        yield f"then.require, then.exclude: both name {_quoted(both)}"
    if (rule.require or rule.exclude) and all(rule.bars(name) for name in known.models):
        yield "then: leaves no model, every request that fits is rejected"
    elif idle := [name for name in rule.prefer if rule.bars(name)]:
        yield f"then.prefer: {_quoted(idle)} may not answer, by the same rule"


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names))


def covers(wide: Conditions, narrow: Conditions) -> bool:
    """Whether every request that fits `narrow` fits `wide`; `False` where that is not certain."""
    sets = (
        (wide.tasks, narrow.tasks),
        (wide.languages, narrow.languages),
        (wide.keys, narrow.keys),
        (wide.unavailable, narrow.unavailable),
        (wide.available, narrow.available),
    )
    most = narrow.most_input_tokens
    return (
        all(not first or (second and second <= first) for first, second in sets)
        and wide.least_input_tokens <= narrow.least_input_tokens
        and (
            wide.most_input_tokens is None or (most is not None and most <= wide.most_input_tokens)
        )
        and (wide.text is None or wide.text.takes_everything or wide.text == narrow.text)
        and all(
            header in narrow.headers
            or (header[1].takes_everything and any(header[0] == name for name, _ in narrow.headers))
            for header in wide.headers
        )
        and (wide.window is None or _within(narrow.window, wide.window))
    )


def _within(narrow: Window | None, wide: Window) -> bool:
    if narrow is None or narrow.zone != wide.zone:
        return False
    if wide.days and not (narrow.days and narrow.days <= wide.days):
        return False
    # Laid out from the beginning of each, which is on the same day for both.
    end = narrow.end if narrow.start < narrow.end else narrow.end + 1440
    wide_end = wide.end if wide.start < wide.end else wide.end + 1440
    return wide.start <= narrow.start and end <= wide_end
