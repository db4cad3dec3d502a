"""Prompts of known task classes, made up from templates: what the task classifier learns from.

The same seed gives the same prompts on every machine. All text is this project's own. A template
is the unit of evaluation: prompts of one template are too alike to be learnt from and tested on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random
from typing import NamedTuple

from profiling.task_classifier.fillings import SLOTS
from profiling.task_classifier.templates import OPTION_TASKS, TEMPLATES, WRAPPERS


class LabelledPrompt(NamedTuple):
    """A prompt, what kind of work it asks for, and the template that it is made of."""

    prompt: str
    task: str
    template: int


def generate_prompts(seed: int, per_template: int) -> list[LabelledPrompt]:
    """Prompts of all templates.

    Args:
        seed: Of all choices.
        per_template: How many of each.
    """
    prompts = []
    number = 0
    for task, templates in TEMPLATES.items():
        for template in templates:
            # Its own generator: one more template elsewhere changes nothing here.
            rng = Random(f"{seed} {task} {template}")
            for _ in range(per_template):
                prompts.append(LabelledPrompt(_prompt(task, template, rng), task, number))
            number += 1
    return prompts


def _prompt(task: str, template: str, rng: Random) -> str:
    text = _filled(template, rng)
    if task in OPTION_TASKS and rng.random() < OPTION_TASKS[task]:
        text = _with_options(task, text, rng)
    elif task in WRAPPERS and rng.random() < 0.35:
        text = rng.choice(WRAPPERS[task]).format(text)
    if rng.random() < 0.12:
        text = text.lower()
    if rng.random() < 0.1:
        text = rng.choice(WRAPPERS["any"]).format(text)
    return text


def _filled(template: str, rng: Random) -> str:
    """The template with every slot filled, in turn with what the fillings hold."""
    parts = []
    for literal, slot in _pieces(template):
        parts.append(literal)
        if slot:
            parts.append(_filling(slot, rng))
    return "".join(parts)


def _pieces(template: str) -> Iterator[tuple[str, str]]:
    rest = template
    while "<" in rest and ">" in rest.split("<", 1)[1]:
        literal, rest = rest.split("<", 1)
        slot, after = rest.split(">", 1)
        if slot in SLOTS or slot in _MADE:
            yield literal, slot
            rest = after
        else:
            yield literal + "<", ""
    yield rest, ""


def _filling(slot: str, rng: Random) -> str:
    if slot in _MADE:
        return _MADE[slot](rng)
    return _filled(rng.choice(SLOTS[slot]), rng)


def _number(rng: Random) -> str:
    return str(rng.choice((rng.randint(2, 12), rng.randint(2, 99), rng.randint(100, 5000))))


def _decimal(rng: Random) -> str:
    return f"{rng.uniform(0.1, 90):.{rng.randint(1, 2)}f}"


def _passage(rng: Random) -> str:
    """Some sentences of prose."""
    return " ".join(_filling("sentence", rng) for _ in range(rng.randint(3, 14)))


def _records(rng: Random) -> str:
    lines = [_filling("record", rng) for _ in range(rng.randint(2, 8))]
    return "\n".join(lines)


_MADE: dict[str, Callable[[Random], str]] = {
    "n": _number,
    "x": _decimal,
    "year": lambda rng: str(rng.randint(1450, 2020)),
    "date": lambda rng: f"{rng.randint(1, 28)}.{rng.randint(1, 12)}.{rng.randint(1990, 2025)}",
    "passage": _passage,
    "records": _records,
}


def _with_options(task: str, text: str, rng: Random) -> str:
    """As a question of an examination."""
    slot = "number option" if task == "mathematics" else "option"
    options = [_filling(slot, rng) for _ in range(rng.choice((3, 4, 4, 5)))]
    mark = rng.choice(("{}. ", "{}) ", "({}) "))
    letters = "ABCDE" if rng.random() < 0.8 else "12345"
    lines = [f"{mark.format(letters[i])}{option}" for i, option in enumerate(options)]
    ending = rng.choice(("\nAnswer:", "", "\nAnswer with the letter only.", "\nThe answer is"))
    return "\n".join([text, *lines]) + ending
