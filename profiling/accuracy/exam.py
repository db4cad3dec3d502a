"""Generated tasks with exact answers, and the rule by which an answer counts as right.

The tasks tell models of very different ability apart: every kind but the facts comes at three
levels, from what a model of 135 million parameters mostly gets right to what a large one may get
wrong. The same seed gives the same tasks on every machine, and a smaller `per_kind` gives the
first tasks of a larger one.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from itertools import accumulate
from random import Random

from profiling.accuracy.facts import CAPITALS, FACTS

LEVELS = 3
MAX_PER_KIND = 100  # what the smallest space, that of the easiest tasks, holds several times over
ANSWER_LINES = 3
BRIEFLY = "Answer in a few words."  # "the number only" sends a small model into explanations
# Not within a word ("x12"); a hyphen after a character is no sign ("7-5").
NUMBER = re.compile(
    r"(?<![^\W_])(?:(?<!\w)-)?(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?"
)
WORD = re.compile(r"[^\W_]+")

NAMES = ("Anna", "Ben", "Clara", "David", "Emma", "Felix", "Grace", "Henry", "Julia", "Oscar")
CITIES = ("Oslo", "Paris", "Rome", "Vienna", "Madrid", "Dublin", "Prague", "Lisbon", "Athens")
COLORS = ("red", "blue", "green", "yellow", "black", "white", "purple", "pink", "brown")
ANIMALS = ("dog", "cat", "rabbit", "parrot", "horse", "goldfish", "hamster", "turtle", "pony")
THINGS = (
    *("apple", "bread", "candle", "desk", "engine", "garden", "hammer", "jacket", "kettle"),
    *("lemon", "mirror", "needle", "pencil", "river", "spoon", "table", "umbrella", "violin"),
)
WORDS = (*THINGS, *ANIMALS, *COLORS)
CODE_LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"  # nothing that looks like something else


class Rule(StrEnum):
    """How an answer is compared; see `is_correct`."""

    LAST_NUMBER = "last_number"
    LAST_NUMBERS = "last_numbers"
    LAST_WORDS = "last_words"
    PHRASE = "phrase"


@dataclass(frozen=True, slots=True)
class Task:
    """One question and what counts as its answer.

    Attributes:
        id: Unique in the set: kind and number.
        answers: Accepted answers; a list is written with spaces between its items.
        max_tokens: Enough generated tokens for the answer in a full sentence.
        rejected: Phrases that make an answer wrong even if the right one stands next to them.
    """

    id: str
    kind: str
    prompt: str
    answers: tuple[str, ...]
    rule: Rule
    max_tokens: int = 32
    rejected: tuple[str, ...] = ()


def is_correct(task: Task, answer_text: str) -> bool:
    """Whether an answer is right; only its first three lines that are not blank are read.

    Upper and lower case, accents and punctuation never matter, words around the answer rarely:

    - `last_number`: the last number given is the answer. A right number that is followed by a wrong
      one is wrong, and so a guess among several does not count; "3 + 4 = 7" is right.
    - `last_numbers`: the last numbers given are the answer, in order.
    - `last_words`: of the words that belong to the answer, the last ones are the answer, in order.
    - `phrase`: an accepted answer stands there as whole words ("Oslo", not "Oslofjord"), and
      nothing that the task rejects does.
    """
    lines = [line for line in answer_text.splitlines() if line.strip()]
    text = "\n".join(lines[:ANSWER_LINES])
    if task.rule is Rule.PHRASE:
        return any(_says(text, answer) for answer in task.answers) and not any(
            _says(text, phrase) for phrase in task.rejected
        )
    return any(_ends_with(task.rule, text, answer) for answer in task.answers)


def _ends_with(rule: Rule, text: str, answer: str) -> bool:
    if rule is Rule.LAST_WORDS:
        expected_words = _words(answer)
        given_words = [word for word in _words(text) if word in expected_words]
        return given_words[-len(expected_words) :] == expected_words
    expected = _numbers(answer)
    return _numbers(text)[-len(expected) :] == expected


def _numbers(text: str) -> list[Decimal]:
    plain = text.replace("\N{MINUS SIGN}", "-")
    return [Decimal(number.replace(",", "")) for number in NUMBER.findall(plain)]


def _words(text: str) -> list[str]:
    decomposed = unicodedata.normalize("NFKD", text)
    plain = "".join(c for c in decomposed if not unicodedata.combining(c))
    return WORD.findall(plain.casefold())


def _says(text: str, phrase: str) -> bool:
    return f" {' '.join(_words(phrase))} " in f" {' '.join(_words(text))} "


def generate_tasks(seed: int, per_kind: int) -> list[Task]:
    """A task set, kind by kind; no prompt stands in it twice.

    Args:
        seed: Any whole number.
        per_kind: Tasks of each kind; of the facts at most as many as are built in.

    Raises:
        ValueError: `per_kind` is not in 1..100.
    """
    if not 1 <= per_kind <= MAX_PER_KIND:
        raise ValueError(f"per_kind: must be in 1..{MAX_PER_KIND}, got {per_kind}")
    tasks = [
        task
        for kind, draw in _GENERATORS.items()
        # A generator of its own for every kind: a new kind leaves the tasks of the others alone.
        for task in _distinct(kind, draw, Random(f"{seed}/{kind}"), per_kind)
    ]
    return tasks + list(_facts(Random(f"{seed}/facts"), per_kind))


_Draw = Callable[[str, Random, int], Task]


def _distinct(kind: str, draw: _Draw, rng: Random, count: int) -> Iterator[Task]:
    prompts: set[str] = set()
    for number in range(count):
        task_id = f"{kind}-{number}"
        task = draw(task_id, rng, number % LEVELS)
        while task.prompt in prompts:
            task = draw(task_id, rng, number % LEVELS)
        prompts.add(task.prompt)
        yield task


def _arithmetic(task_id: str, rng: Random, level: int) -> Task:
    if level == 0:
        left, right, sign = rng.randint(1, 12), rng.randint(1, 9), rng.choice("+-")
    elif level == 1:
        left, right, sign = rng.randint(11, 99), rng.randint(11, 99), rng.choice("+-")
    else:
        left, right, sign = rng.randint(12, 99), rng.randint(3, 29), "*"
    if sign == "-":
        left, right = max(left, right), min(left, right)
    result = {"+": left + right, "-": left - right, "*": left * right}[sign]
    prompt = f"What is {left} {sign} {right}? {BRIEFLY}"
    return Task(task_id, "arithmetic", prompt, (str(result),), Rule.LAST_NUMBER)


def _copying(task_id: str, rng: Random, level: int) -> Task:
    if level == 0:
        text = "".join(rng.choices(CODE_LETTERS, k=rng.randint(4, 8)))
    elif level == 1:
        text = f"{rng.choice(NAMES)} put the {' and the '.join(rng.sample(THINGS, 2))} away."
    else:
        text = " ".join(rng.sample(WORDS, 7))
    prompt = f'Copy this text: "{text}"'
    return Task(task_id, "copying", prompt, (text,), Rule.PHRASE, max_tokens=48)


def _sorting(task_id: str, rng: Random, level: int) -> Task:
    if rng.random() < 0.5:
        numbers = rng.sample(range(1, 100), (3, 5, 8)[level])
        items, ordered = [str(n) for n in numbers], [str(n) for n in sorted(numbers)]
        order, rule = "from smallest to largest", Rule.LAST_NUMBERS
    else:
        items = rng.sample(WORDS, (3, 4, 6)[level])
        ordered, order, rule = sorted(items), "in alphabetical order", Rule.LAST_WORDS
    prompt = f"Sort these {order}, on one line: {', '.join(items)}"
    return Task(task_id, "sorting", prompt, (" ".join(ordered),), rule, max_tokens=48)


def _extraction(task_id: str, rng: Random, level: int) -> Task:
    values, statement, question = rng.choice(
        (
            (CITIES, "{} lives in {}.", "Where does {} live?"),
            (COLORS, "The favourite colour of {} is {}.", "What is the favourite colour of {}?"),
            (ANIMALS, "The pet of {} is a {}.", "What is the pet of {}?"),
        )
    )
    count = (1, 2, 5)[level]
    owners, owned = rng.sample(NAMES, count), rng.sample(values, count)
    asked = rng.randrange(count)
    story = " ".join(statement.format(*pair) for pair in zip(owners, owned, strict=True))
    others = tuple(value for value in owned if value != owned[asked])
    prompt = f"{story} {question.format(owners[asked])}"
    return Task(task_id, "extraction", prompt, (owned[asked],), Rule.PHRASE, rejected=others)


def _choosing(task_id: str, rng: Random, level: int) -> Task:
    name, members = rng.choice((("a colour", COLORS), ("an animal", ANIMALS), ("a city", CITIES)))
    answer = rng.choice(members)
    others = rng.sample(THINGS, (1, 3, 7)[level])
    options = [*others, answer]
    rng.shuffle(options)
    prompt = f"Which one of these is {name}: {', '.join(options)}?"
    return Task(task_id, "choosing", prompt, (answer,), Rule.PHRASE, rejected=tuple(others))


def _sequence(task_id: str, rng: Random, level: int) -> Task:
    if level == 0:
        before = rng.randint(1, 200)
        prompt = f"Which number comes right after {before}?"
        return Task(task_id, "sequence", prompt, (str(before + 1),), Rule.LAST_NUMBER)
    start = rng.randint(1, 50)
    step = rng.randint(2, 12)
    # Equal steps, as in 3, 5, 7, 9, or growing ones, as in 3, 5, 9, 15.
    steps = [step * (1 if level == 1 else i) for i in range(1, 5)]
    terms = list(accumulate(steps, initial=start))
    prompt = f"Which number comes next: {', '.join(map(str, terms[:-1]))}?"
    return Task(task_id, "sequence", prompt, (str(terms[-1]),), Rule.LAST_NUMBER)


def _facts(rng: Random, count: int) -> Iterator[Task]:
    cities = {city for accepted in CAPITALS.values() for city in accepted}
    for number, fact in enumerate(rng.sample(FACTS, min(count, len(FACTS)))):
        # Naming several capitals is guessing.
        others = tuple(sorted(cities - {*fact.answers})) if cities & {*fact.answers} else ()
        prompt = f"{fact.question} {BRIEFLY}"
        yield Task(f"facts-{number}", "facts", prompt, fact.answers, Rule.PHRASE, rejected=others)


_GENERATORS: dict[str, _Draw] = {
    "arithmetic": _arithmetic,
    "copying": _copying,
    "sorting": _sorting,
    "extraction": _extraction,
    "choosing": _choosing,
    "sequence": _sequence,
}
