from __future__ import annotations

import pytest

from scheduler.prompts.tasks import HEAD_CHARS, TASKS, classify


@pytest.mark.parametrize(
    ("prompt", "task"),
    [
        ("Translate to German: Where is the station?", "translation"),
        ("Übersetze ins Englische: Guten Tag", "translation"),
        ("Summarize the following article in two sentences.", "summarization"),
        ("Write a function to find the triplet with the given sum.", "code"),
        ("What does this do?\n```\nfor i in x: print(i)\n```", "code"),
        ("Extract all dates from this letter as JSON.", "extraction"),
        ("Janet has 16 eggs and eats three. How many eggs are left?", "mathematics"),
        ("17 * (3 + 4)", "mathematics"),
        ("Clue 1: the owner of the fish lives next to the musician.", "reasoning"),
        ("who sings what a feeling", "knowledge"),
        ("In the year 1990 who was president of France?", "knowledge"),
        ("Hello, nice to meet you.", "chat"),
        ("", "chat"),
        ("漢字", "chat"),
        ("\ud800", "chat"),
    ],
)
def test_tasks(prompt: str, task: str) -> None:
    assert classify(prompt) == task
    assert task in TASKS


def test_an_instruction_after_a_long_text_counts_and_what_is_quoted_does_not() -> None:
    article = "The harvest was good. " * 200
    assert classify(f"{article}\n\nSummarize this.") == "summarization"
    quoted = "The teacher said: translate this! " * 5
    assert classify("The harvest was good. " * 40 + quoted + "It rained. " * 100) == "chat"
    assert len("The harvest was good. " * 40) > HEAD_CHARS
