"""How long the latest answers of every model were, by task class, and what the next may be.

A generation that a limit stopped is known to be at least that long, no more: short limits must not
make a model look brief. Nothing here looks at the text of a prompt or reads a clock.

Sources: Kaplan and Meier 1958 for the distribution under such limits (the same as redistributing
to the right, Efron 1967); Brown, Hollander and Korwar 1974 for what lies beyond the longest answer
where a limit stopped that one; the positive part of James and Stein 1961 for the exponent.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from math import fsum, log
from operator import truediv
from statistics import fmean, linear_regression
from typing import Any, NamedTuple

import numpy as np

from scheduler.costs.lengths import OutputLength, PromptEffect

KEPT = 500
"""So many of the latest answers count, for each model and task class."""

MAX_TASKS = 32
"""Of one model; the one that was seen least recently makes room for a new one."""

LEAST = 10
"""Fewer answers that ended by themselves say nothing."""

QUANTILES = 20

# The lengths are worked out again once so large a part of the answers is new.
_REFRESH = 1 / 20


class _Answer(NamedTuple):
    output_tokens: int
    cut: bool
    input_tokens: int | None


class LengthHistory:
    """What was observed; equal observations in equal order give equal histories.

    Attributes:
        observations: Answers that it observed, those that it has forgotten included.
    """

    def __init__(self) -> None:
        self.observations = 0
        self._models: dict[str, dict[str, _Series]] = {}
        self._lengths: dict[str, Mapping[str, OutputLength]] = {}

    def observe(
        self,
        model: str,
        task: str,
        output_tokens: int,
        cut: bool,
        input_tokens: int | None = None,
    ) -> None:
        """Take in one answer.

        Args:
            model: Who answered.
            task: Task class of the prompt, empty where none is known.
            output_tokens: Generated tokens.
            cut: A limit stopped the generation.
            input_tokens: Prompt tokens, `None` where unknown.
        """
        self.observations += 1
        # The end of an empty answer was generated too, and 0 has no logarithm.
        answer = _Answer(max(output_tokens, 1), cut, input_tokens or None)
        tasks = self._models.setdefault(model, {})
        for name in dict.fromkeys(("", task)):
            # Taken out and put back, so that the first one is always the one unseen for longest.
            series = tasks[name] = tasks.pop(name) if name in tasks else _Series()
            if series.add(answer):
                self._lengths.pop(model, None)
        if len(tasks) > MAX_TASKS + 1:
            del tasks[next(iter(tasks))]
            self._lengths.pop(model, None)

    def lengths(self, model: str) -> Mapping[str, OutputLength]:
        """The usual lengths by task class, under the empty name for all together.

        A class of which too little is known is left out, and so may all be.
        """
        lengths = self._lengths.get(model)
        if lengths is None:
            worked_out = {
                task: series.length() for task, series in self._models.get(model, {}).items()
            }
            lengths = {task: length for task, length in worked_out.items() if length is not None}
            self._lengths[model] = lengths
        return lengths

    def to_json(self) -> str:
        """Everything, to go on from later or elsewhere."""
        models = {
            model: {task: series.to_dict() for task, series in tasks.items()}
            for model, tasks in self._models.items()
        }
        state = {"observations": self.observations, "models": models}
        return json.dumps(state, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> LengthHistory:
        """Read what `to_json` wrote.

        Raises:
            ValueError: It is broken.
        """
        history = cls()
        try:
            state = json.loads(text)
            history.observations = int(state["observations"])
            for model, tasks in state["models"].items():
                history._models[model] = {
                    task: _Series.from_dict(content) for task, content in tasks.items()
                }
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"lengths of answers are malformed: {error!r}") from error
        return history


class _Series:
    """The latest answers of one model to one class of tasks."""

    def __init__(self, answers: Iterable[_Answer] = ()) -> None:
        self._answers = deque(answers, maxlen=KEPT)
        self._new = len(self._answers)
        self._length: OutputLength | None = None

    def add(self, answer: _Answer) -> bool:
        """Take in an answer.

        Returns:
            Whether the length has to be worked out again.
        """
        self._answers.append(answer)
        self._new += 1
        return self._stale()

    def length(self) -> OutputLength | None:
        """The usual length; `None` where too little is known."""
        if self._stale():
            self._length = _usual_length(self._answers)
            self._new = 0
        return self._length

    def _stale(self) -> bool:
        return self._new > len(self._answers) * _REFRESH

    def to_dict(self) -> dict[str, Any]:
        return {
            "output_tokens": [answer.output_tokens for answer in self._answers],
            "cut": [index for index, answer in enumerate(self._answers) if answer.cut],
            "input_tokens": [answer.input_tokens for answer in self._answers],
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> _Series:
        outputs, inputs = content["output_tokens"], content["input_tokens"]
        cut = set(content["cut"])
        return cls(
            _Answer(_positive(tout), index in cut, None if tin is None else _positive(tin))
            for index, (tout, tin) in enumerate(zip(outputs, inputs, strict=True))
        )


def _positive(value: Any) -> int:
    if (count := int(value)) < 1:
        raise ValueError(f"{value!r} tokens")
    return count


def _usual_length(answers: Sequence[_Answer]) -> OutputLength | None:
    """The lengths of answers, and how they follow those of the prompts where these are known.

    Returns:
        `None` where fewer than `LEAST` answers ended by themselves, or where limits hid half of
        the lengths or more.
    """
    outputs, cuts, inputs = zip(*answers, strict=True) if answers else ((), (), ())
    if cuts.count(False) < LEAST:
        return None
    effect = None if None in inputs else _prompt_effect(outputs, cuts, inputs)
    lengths: Iterable[float] = outputs
    if effect is not None:
        lengths = map(truediv, outputs, map(effect.factor, inputs))
    quantiles = censored_quantiles(zip(lengths, cuts, strict=True))
    return None if quantiles is None else OutputLength(quantiles, effect)


def _prompt_effect(
    outputs: Sequence[int], cuts: Sequence[bool], inputs: Sequence[int]
) -> PromptEffect | None:
    """A line through the logarithms of both lengths, less steep the less certain its slope is.

    Returns:
        `None` where the slope is no larger than its standard error.
    """
    prompts = sorted(inputs)
    shortest, longest = (prompts[int(share * len(prompts))] for share in (0.05, 0.95))
    # Of the answers that ended: how long the others would have become is not known.
    xs = [
        log(min(max(tin, shortest), longest))
        for tin, cut in zip(inputs, cuts, strict=True)
        if not cut
    ]
    ys = [log(tout) for tout, cut in zip(outputs, cuts, strict=True) if not cut]
    if min(xs) == max(xs):
        return None
    slope, intercept = linear_regression(xs, ys)
    x_mean = fmean(xs)
    squares = fsum([(x - x_mean) ** 2 for x in xs])
    residuals = fsum([(y - intercept - slope * x) ** 2 for x, y in zip(xs, ys, strict=True)])
    variance = residuals / (len(xs) - 2) / squares
    if slope**2 <= variance:
        return None
    exponent = slope * (1 - variance / slope**2)
    return PromptEffect(exponent, prompts[len(prompts) // 2], shortest, longest)


def censored_quantiles(lengths: Iterable[tuple[float, bool]]) -> tuple[float, ...] | None:
    """`QUANTILES` equally likely lengths.

    Each answer stands in the middle of its share of the distribution, linear in between, as
    `OutputLength` reads them. Beyond the longest answer, where that one was cut, the lengths go on
    as if every further token were as likely to be the last.

    Args:
        lengths: Lengths above 0, and whether a limit cut them; at least one was not cut.

    Returns:
        `None` where half of the distribution or more lies beyond the longest answer.
    """
    # Of equally long answers, those that were cut come last: they would have gone on.
    ordered = sorted(lengths)
    unseen = 1.0
    shares, values = [], []
    for index, (length, cut) in enumerate(ordered):
        if not cut:
            share = unseen / (len(ordered) - index)
            shares.append(1 - unseen + share / 2)
            values.append(length)
            unseen -= share
    longest, last_was_cut = ordered[-1]
    if not last_was_cut:
        unseen = 0.0
    elif unseen >= 0.5:
        return None
    else:
        shares.append(1 - unseen)
        values.append(longest)
    wanted = [(index + 0.5) / QUANTILES for index in range(QUANTILES)]
    return tuple(
        longest * log(1 - share) / log(unseen) if share > 1 - unseen else length
        for share, length in zip(wanted, np.interp(wanted, shares, values).tolist(), strict=True)
    )
