"""The sequential policy for one request: a plan that says after every answer what to do next.

The utility of a request is the chance of a right answer less what was asked for it, in the
weights of the request: `P(right) - (w_energy x E/E_max + w_time x T/T_max) / w_accuracy`, with the
dearest and the slowest candidate's predictions as units. Predictions are those of the decision,
with waits and cached prefixes; `scheduler.sequential.decide` looks ahead.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from scheduler.sequential.answers import form_of
from scheduler.sequential.decide import Options, Planner
from scheduler.sequential.posterior import BLANK, AnswerModel, Belief, Label, Traits

MOST_ASKED = 3
SAME = 1e-9
NO_OUTCOMES = "the prior: no outcomes with answers"


@dataclass(frozen=True, slots=True)
class SeenAnswer:
    """An answer that is there.

    Attributes:
        answer: In comparable form, `None` where it has none.
        blank: It is cut or empty, so that it can hardly be right.
        output_tokens: Its length, `None` where it was not counted.
        mean_logprob: Of its tokens, `None` where unknown.
    """

    model: str
    answer: str | None
    blank: bool = False
    output_tokens: int | None = None
    mean_logprob: float | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """What to do now, and why.

    Attributes:
        ask: The model to ask; `None`: give the answer of `give`.
        also: The model to ask at the same time, `None`: no other.
        give: The model whose answer is the best one there, empty before there is any.
        chance_right: Of that answer.
        worth: Expected utility of giving it (under the empty name), of asking each model, and of
            asking two at once (under `A + B`), where that can save time.
        chances: That each model is right, of those that were not asked.
    """

    ask: str | None
    give: str
    chance_right: float
    worth: Mapping[str, float]
    chances: Mapping[str, float]
    also: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """For `routing.attempts`."""
        asked = f"ask {self.ask}" + (f" and {self.also}" if self.also else "")
        return {
            "action": asked if self.ask else f"give {self.give}",
            "chance_right": self.chance_right,
            "worth": {name or "give": value for name, value in self.worth.items()},
            "chances": dict(self.chances),
        }


@dataclass(frozen=True)
class Plan:
    """Everything that the steps of one request need.

    Attributes:
        models: Candidates that may be asked, in the order of their accuracies less costs.
        answers: The fitted figures, for these models.
        kind: Index of the prompt's kind.
        log_odds: Of each being right, from the prompt.
        costs: Of asking each, in chances of a right answer.
        output_tokens: Expected of each.
        saved_together: How much less two models cost when they are asked at once: their joules add
            up, their seconds overlap. Empty where all of them share devices.
    """

    models: tuple[str, ...]
    answers: AnswerModel
    kind: int
    log_odds: tuple[float, ...]
    costs: tuple[float, ...]
    output_tokens: tuple[float, ...]
    saved_together: tuple[tuple[float, ...], ...] = ()
    name: ClassVar[str] = "plan"

    def to_json(self) -> dict[str, Any]:
        """For the decision's JSON."""
        fitted = self.answers.prompts
        return {
            "models": list(self.models),
            "chances": [1 / (1 + math.exp(-odds)) for odds in self.log_odds],
            "costs": list(self.costs),
            "kind": self.answers.kinds[self.kind],
            "answers_from": f"{fitted} prompts" if fitted else NO_OUTCOMES,
        }

    @cached_property
    def first(self) -> Step:
        """Before anything was asked."""
        return self.after(())

    def after(self, seen: Sequence[SeenAnswer], able: Collection[str] | None = None) -> Step:
        """What to do once these answers are there.

        Args:
            seen: In the order of their coming, each model at most once.
            able: Models that can be asked now; all of them where `None`.
        """
        place = {name: number for number, name in enumerate(self.models)}
        seen = [one for one in seen if one.model in place]
        agreement = all(one.blank or one.answer is not None for one in seen)
        belief = self._belief(seen, agreement)
        labels = _labels(seen)
        pattern = tuple((place[one.model], label) for one, label in zip(seen, labels, strict=True))
        asked = [number for number, name in enumerate(self.models) if able is None or name in able]
        saved = np.array(self.saved_together) if self.saved_together else None
        planner = Planner(belief, np.ones(1), MOST_ASKED, able=asked, saved_together=saved)
        options = planner.options(np.zeros(1, dtype=np.int64), pattern, np.array([self.costs]))
        return self._step(seen, labels, options, belief)

    def may_go_on(self, seen: Sequence[SeenAnswer], model: str, able: Collection[str]) -> bool:
        """Whether some answer of `model` would have another model be asked after it."""
        if len(seen) + 1 >= min(MOST_ASKED, len(self.models)):
            return False
        rest = [name for name in able if name != model]
        supposed: list[SeenAnswer] = [SeenAnswer(model, None, blank=True)]
        supposed += [SeenAnswer(model, one.answer) for one in seen if one.answer is not None]
        supposed.append(SeenAnswer(model, "\0 an answer of its own"))
        return any(self.after([*seen, one], rest).ask is not None for one in supposed)

    def _belief(self, seen: Sequence[SeenAnswer], agreement: bool) -> Belief:
        m = len(self.models)
        residual, logprob = np.zeros((1, m)), np.full((1, m), np.nan)
        form = np.zeros((1, m), dtype=np.int64)
        for one in seen:
            place = self.models.index(one.model)
            form[0, place] = form_of(one.answer)
            if one.output_tokens:
                expected = max(self.output_tokens[place], 1.0)
                residual[0, place] = math.log(one.output_tokens / expected)
            if one.mean_logprob is not None:
                logprob[0, place] = one.mean_logprob
        model = self.answers if agreement else self.answers.without_agreement()
        kind = np.array([self.kind])
        traits = Traits(residual, form, logprob)
        return Belief.of(model, kind, np.array([self.log_odds]), traits)

    def _step(
        self,
        seen: Sequence[SeenAnswer],
        labels: Sequence[Label],
        options: Options,
        belief: Belief,
    ) -> Step:
        total = float(options.joint.total[0])
        worth = {"": float(options.give[0]) / total} if seen else {}
        worth |= {self.models[m]: float(value[0, 0]) / total for m, value in options.ask.items()}
        pairs = {
            f"{self.models[one]} + {self.models[other]}": (one, other)
            for one, other in options.ask_both
        }
        worth |= {name: float(options.ask_both[pair][0, 0]) / total for name, pair in pairs.items()}
        chances = belief.chances(np.zeros(1, dtype=np.int64), options.joint)[0]
        asked = {one.model for one in seen}
        give, chance = "", 0.0
        if seen:
            give = seen[-1].model
            if options.joint.clusters:
                best = int(options.joint.right[:, 0].argmax())
                chance = float(options.joint.right[best, 0]) / total
                of_best = options.joint.clusters[best]
                # Of answers that agree the last one: the dearest model's words.
                give = [o.model for o, lab in zip(seen, labels, strict=True) if lab == of_best][-1]
        best_name = max(worth, key=lambda name: (worth[name], -len(name))) if worth else ""
        if seen and worth[best_name] <= worth[""] + SAME:
            best_name = ""
        ask: str | None = best_name or None
        also: str | None = None
        if best_name in pairs:
            ask, also = (self.models[place] for place in pairs[best_name])
        return Step(
            ask=ask,
            also=also,
            give=give,
            chance_right=chance,
            worth=worth,
            chances={
                name: float(value)
                for name, value in zip(self.models, chances, strict=True)
                if name not in asked
            },
        )


def _labels(seen: Sequence[SeenAnswer]) -> list[Label]:
    known: dict[str, Label] = {}
    labels = []
    for number, one in enumerate(seen):
        if one.blank:
            labels.append(BLANK)
        else:
            # An answer that cannot be compared stands by itself.
            key = f"\0{number}" if one.answer is None else one.answer
            labels.append(known.setdefault(key, len(known)))
    return labels
