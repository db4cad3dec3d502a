"""What finished requests teach: how far the profiles are off now, and how long answers are."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass

from scheduler.costs.learnt.drift import Corrections
from scheduler.costs.learnt.length_history import LengthHistory
from scheduler.costs.observations import Outcome
from scheduler.errors import ProfileError


@dataclass(frozen=True, slots=True)
class Lesson:
    """One finished request.

    Attributes:
        outcome: Its costs next to their predictions, `None` where nothing was predicted.
        model: Who answered.
        task: Task class of the prompt, empty where none is known.
        input_tokens: Prompt tokens.
        output_tokens: Generated tokens; `None` where their number says nothing about the model,
            because the request fixed it.
        cut: A limit stopped the generation.
    """

    outcome: Outcome | None
    model: str
    task: str
    input_tokens: int
    output_tokens: int | None
    cut: bool


class Learning:
    """All that was learnt; equal lessons in equal order give equal states.

    Attributes:
        lessons: How many there were.
        revisions: By model, how many of them were about it.
    """

    def __init__(self) -> None:
        self.corrections = Corrections()
        self.lengths = LengthHistory()
        self.lessons = 0
        self.revisions: Counter[str] = Counter()

    def learn(self, lesson: Lesson) -> None:
        """Take in one finished request."""
        self.lessons += 1
        self.revisions[lesson.model] += 1
        if lesson.outcome is not None and lesson.outcome.model != lesson.model:
            self.revisions[lesson.outcome.model] += 1
        if lesson.outcome is not None:
            self.corrections.observe(lesson.outcome)
        if lesson.output_tokens is not None:
            self.lengths.observe(
                lesson.model, lesson.task, lesson.output_tokens, lesson.cut, lesson.input_tokens
            )

    def to_json(self) -> str:
        """Everything, to go on from later or elsewhere."""
        state = {
            "lessons": self.lessons,
            "corrections": json.loads(self.corrections.to_json()),
            "lengths": json.loads(self.lengths.to_json()),
        }
        return json.dumps(state)

    @classmethod
    def from_json(cls, text: str) -> Learning:
        """Read what `to_json` wrote.

        Raises:
            ProfileError: It is broken.
        """
        learning = cls()
        try:
            state = json.loads(text)
            learning.lessons = int(state["lessons"])
            learning.corrections = Corrections.from_json(json.dumps(state["corrections"]))
            learning.lengths = LengthHistory.from_json(json.dumps(state["lengths"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ProfileError(f"learned state is malformed: {error}") from error
        return learning
