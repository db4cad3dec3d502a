"""Ask a model, look at the answer, ask again: the action of the highest expected utility.

The utility of a request is the chance that the given answer is right less the price of everything
that was asked. The planner looks ahead over what asking each further model, or two at once, may
bring (it agrees with an answer that is there, gives another one, or none that can be used), through
as many steps as it may ask, and says what each action is worth. What it knows of answers is
`scheduler.sequential.posterior`'s; costs come in with every call, so that waits and drift count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from scheduler.sequential.posterior import BLANK, Belief, Indices, Joint, Label, Seen

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Options:
    """What can be done now, for n prompts at p prices; values not scaled by `joint.total`.

    Attributes:
        joint: What is believed.
        give: (n,) weight of the best answer that is there.
        ask: By model, (n, p) value of asking it and going on in the best way.
        value: (n, p) of the best action.
        ask_both: The same for two models at once; empty in a look ahead, which asks in turn.
    """

    joint: Joint
    give: Floats
    ask: dict[int, Floats]
    value: Floats
    ask_both: Mapping[tuple[int, int], Floats] = field(default_factory=dict)


@dataclass(frozen=True)
class Planner:
    """Looks ahead for the same models and prices.

    Attributes:
        belief: What is known of every prompt.
        prices: (p,) what a unit of cost is worth in chances of a right answer.
        most_asked: So many models may be asked for one prompt.
        dearer_only: Only models after the last one that was asked; models come in the order of
            their costs. Where many models are there, it keeps the tree small.
        able: Models that may be asked now; all of them where `None`.
        saved_together: (m, m) how much less two models cost when they are asked at once: their
            joules add up, their seconds overlap. `None`: models are asked in turn only.
    """

    belief: Belief
    prices: Floats
    most_asked: int = 3
    dearer_only: bool = False
    able: Sequence[int] | None = None
    saved_together: Floats | None = None

    def options(self, rows: Indices, seen: Seen, costs: Floats) -> Options:
        """Every action for prompts that have seen the same pattern of answers.

        Args:
            rows: Which prompts.
            seen: What was asked and what came, alike for all of them.
            costs: (n, m) what asking each model is expected to cost now.
        """
        search = _Search(self, rows, costs, len(seen))
        options = search.options(seen)
        if self.saved_together is None or len(seen) + 2 > self.most_asked:
            return options
        return replace(options, ask_both=search.both(seen, self.saved_together))


@dataclass
class _Search:
    """One look ahead; what is worth the same is computed once."""

    planner: Planner
    rows: Indices
    costs: Floats
    observed: int
    known: dict[Seen, Options] = field(default_factory=dict)

    def options(self, seen: Seen) -> Options:
        seen = self._alike(seen)
        if seen in self.known:
            return self.known[seen]
        planner = self.planner
        joint = planner.belief.joint(self.rows, seen, self.observed)
        give = joint.right.max(axis=0) if len(joint.clusters) else np.zeros(len(self.rows))
        value = np.repeat(give[:, None], len(planner.prices), axis=1)
        ask: dict[int, Floats] = {}
        if len(seen) < planner.most_asked:
            for model in self._left(seen):
                worth = -planner.prices * (self.costs[:, model] * joint.total)[:, None]
                for after in self._outcomes(seen, joint, model):
                    worth += self.options(after).value
                ask[model] = worth
                value = np.maximum(value, worth)
        self.known[seen] = Options(joint, give, ask, value)
        return self.known[seen]

    def both(self, seen: Seen, saved: Floats) -> dict[tuple[int, int], Floats]:
        """What asking two models at once is worth, for each pair that is left."""
        joint = self.options(seen).joint
        worth = {}
        for one, other in combinations(self._left(seen), 2):
            cost = self.costs[:, one] + self.costs[:, other] - saved[one, other]
            value = -self.planner.prices * (cost * joint.total)[:, None]
            for after in self._outcomes(seen, joint, one):
                first = self.options(after)
                lasts = self._outcomes(after, first.joint, other)
                looked = sum(self.options(last).value for last in lasts)
                # The second answer may be ignored. (Right in two spellings is no outcome.)
                value += np.maximum(looked, first.give[:, None])
            worth[one, other] = value
        return worth

    @staticmethod
    def _outcomes(seen: Seen, joint: Joint, model: int) -> list[Seen]:
        """What may be seen after `model`: an answer that is there, another one, or none."""
        labels: list[Label] = [*joint.clusters, len(joint.clusters), BLANK]
        return [(*seen, (model, label)) for label in labels]

    def _alike(self, seen: Seen) -> Seen:
        """The same answers in one order: what is supposed only, by model; labels by first place.

        The order of asking hardly matters for what is believed, and there are many orders.
        """
        real, supposed = seen[: self.observed], sorted(seen[self.observed :])
        known: dict[Label, Label] = {}
        for _, label in real:
            known.setdefault(label, label)
        renamed = []
        for model, label in supposed:
            if label != BLANK and label not in known:
                known[label] = len([one for one in known if one != BLANK])
            renamed.append((model, known.get(label, label)))
        return (*real, *renamed)

    def _left(self, seen: Seen) -> list[int]:
        asked = {model for model, _ in seen}
        last = max(asked, default=-1) if self.planner.dearer_only else -1
        models = range(self.costs.shape[1]) if self.planner.able is None else self.planner.able
        return [model for model in models if model not in asked and model > last]
