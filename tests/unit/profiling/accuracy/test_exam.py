import operator
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiling.accuracy.exam import MAX_PER_KIND, Rule, Task, generate_tasks, is_correct
from profiling.accuracy.facts import FACTS

KINDS = ["arithmetic", "copying", "sorting", "extraction", "choosing", "sequence", "facts"]


def task(answer: str, rule: Rule, rejected: tuple[str, ...] = ()) -> Task:
    return Task("t-0", "t", "?", (answer,), rule, rejected=rejected)


def test_same_seed_same_tasks_other_seed_other_tasks() -> None:
    assert generate_tasks(7, 20) == generate_tasks(7, 20)
    assert generate_tasks(7, 20) != generate_tasks(8, 20)


def test_a_smaller_set_is_the_start_of_a_larger_one() -> None:
    larger = {task.id: task for task in generate_tasks(7, 30)}
    assert all(larger[task.id] == task for task in generate_tasks(7, 9))


@given(seed=st.integers(), per_kind=st.integers(1, MAX_PER_KIND))
@settings(max_examples=20, deadline=None)
def test_counts_ids_and_prompts(seed: int, per_kind: int) -> None:
    tasks = generate_tasks(seed, per_kind)
    counts = dict.fromkeys(KINDS, per_kind) | {"facts": min(per_kind, len(FACTS))}
    assert Counter(task.kind for task in tasks) == counts
    assert len({task.id for task in tasks}) == len({task.prompt for task in tasks}) == len(tasks)


@pytest.mark.parametrize("per_kind", [0, -1, MAX_PER_KIND + 1])
def test_per_kind_out_of_range(per_kind: int) -> None:
    with pytest.raises(ValueError, match=rf"per_kind: must be in 1\.\.100, got {per_kind}"):
        generate_tasks(0, per_kind)


@given(seed=st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_its_own_answer_is_right_and_another_tasks_is_mostly_wrong(seed: int) -> None:
    tasks = generate_tasks(seed, 12)
    assert all(is_correct(task, answer) for task in tasks for answer in task.answers)
    assert all(
        is_correct(task, f"Sure! It is {answer}.") for task in tasks for answer in task.answers
    )
    assert not any(is_correct(task, answer) for task in tasks for answer in ("", "I do not know."))
    crossed = [is_correct(a, b.answers[0]) for a in tasks for b in tasks if a.id != b.id]
    assert sum(crossed) / len(crossed) < 0.05


def test_repeating_the_question_answers_only_where_it_holds_nothing_but_the_answer() -> None:
    tasks = generate_tasks(3, 60)
    right = Counter(task.kind for task in tasks if is_correct(task, task.prompt))
    assert right["arithmetic"] == right["sequence"] == right["facts"] == right["choosing"] == 0
    # With one statement there is nothing to confuse; items may come sorted already.
    assert right["extraction"] == 20
    assert right["sorting"] <= 12


def test_arithmetic_answers_are_the_results() -> None:
    for task in generate_tasks(1, 90):
        if task.kind == "arithmetic":
            left, sign, right = task.prompt.removeprefix("What is ").partition("?")[0].split()
            operation = {"+": operator.add, "-": operator.sub, "*": operator.mul}[sign]
            result = operation(int(left), int(right))
            assert task.answers == (str(result),)
            assert result >= 0


def test_sorting_answers_are_the_sorted_items() -> None:
    for task in generate_tasks(1, 90):
        if task.kind == "sorting":
            items = task.prompt.partition(": ")[2].split(", ")
            by_value = int if task.rule is Rule.LAST_NUMBERS else str
            assert task.answers == (" ".join(sorted(items, key=by_value)),)


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("12", True),
        ("8 + 4 = 12", True),
        ("The answer is **12**.", True),
        ("12.0", True),
        ("\n\n  Twelve is\n12\n", True),
        ("It is 12, or maybe 13.", False),
        ("It is 13, no: 12.", True),
        ("112", False),
        ("12.5", False),
        ("-12", False),
        ("x12", False),
        ("twelve", False),
        ("a\nb\nc\n12", False),
    ],
)
def test_last_number(text: str, right: bool) -> None:
    assert is_correct(task("12", Rule.LAST_NUMBER), text) is right


@pytest.mark.parametrize(
    ("answer", "text", "right"),
    [
        ("1234", "1,234", True),
        ("1234", "12,34", False),
        ("-5", "−5", True),
        ("-5", "5", False),
        ("2", "7-5=2", True),
    ],
)
def test_how_numbers_are_written(answer: str, text: str, right: bool) -> None:
    assert is_correct(task(answer, Rule.LAST_NUMBER), text) is right


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("2, 5, 19", True),
        ("2 < 5 < 19", True),
        ("2,5,19", True),
        ("5, 19, 2 in order: 2, 5, 19.", True),
        ("2, 19, 5", False),
        ("2, 5", False),
        ("2, 5, 19, 20", False),
        ("2, 5, 19\n19, 5, 2", False),
    ],
)
def test_last_numbers(text: str, right: bool) -> None:
    assert is_correct(task("2 5 19", Rule.LAST_NUMBERS), text) is right


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("apple, desk, zebra", True),
        ("In order: Apple, then the Desk and Zebra.", True),
        ("Sorted from desk, zebra, apple: apple, desk, zebra", True),
        ("apple, zebra, desk", False),
        ("apples, desks, zebras", False),
        ("apple, desk", False),
    ],
)
def test_last_words(text: str, right: bool) -> None:
    assert is_correct(task("apple desk zebra", Rule.LAST_WORDS), text) is right


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("OSLO", True),
        ("He lives in Ósló.", True),
        ("Oslofjord", False),
        ("Oslo or Rome", False),
        ("Rome", False),
        ("I think\nthat he\nlives in\nOslo", False),
    ],
)
def test_phrase(text: str, right: bool) -> None:
    assert is_correct(task("Oslo", Rule.PHRASE, rejected=("Rome",)), text) is right


@pytest.mark.parametrize(
    ("text", "right"), [("blue whale", True), ("Blue-Whale", True), ("whale, blue", False)]
)
def test_a_phrase_of_several_words_stands_in_order(text: str, right: bool) -> None:
    assert is_correct(task("blue whale", Rule.PHRASE), text) is right


def test_naming_several_capitals_is_guessing() -> None:
    france = next(t for t in generate_tasks(0, 100) if "capital of France" in t.prompt)
    assert is_correct(france, "The capital of France is Paris.")
    assert not is_correct(france, "Berlin, Paris, Rome or Madrid.")
