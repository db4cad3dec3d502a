from __future__ import annotations

import numpy as np
import pytest
from cascade import compare, decide

from profiling.cascade.fit import Answers
from scheduler.preferences import Weights


def answers() -> Answers:
    """A small model that is sure of what it has right, half of all, and a large one."""
    right = np.tile([1.0, 0.0], 100)
    return Answers(
        ("small", "large"),
        np.column_stack([right, np.ones(200)]),
        np.column_stack([np.where(right > 0, -0.1, -2.0), np.full(200, -0.1)]),
        np.column_stack([np.full(200, 2.0), np.full(200, 10.0)]),
    )


def test_every_way_to_choose_has_its_row() -> None:
    rows = {row["policy"]: row for row in compare(answers())}
    assert rows["small"]["accuracy"] == pytest.approx(0.5, abs=0.05)
    assert (rows["large"]["accuracy"], rows["large"]["joules"]) == (1.0, 10.0)
    cascade = rows["cascade, within 0%"]
    # Half of the prompts are asked twice: 2 + 10 / 2.
    assert cascade["accuracy"] == pytest.approx(1.0)
    assert cascade["joules"] == pytest.approx(7.0, abs=0.6)
    assert cascade["answers"] == pytest.approx(1.5, abs=0.06)
    # Half of them are right for 2, the others for 10.
    assert rows["oracle"]["joules"] == pytest.approx(6.0, abs=0.5)
    assert rows["oracle"]["accuracy"] == 1.0


@pytest.mark.parametrize(
    ("weights", "model"), [(Weights(1, 0, 0), "large"), (Weights(0, 1, 0), "small")]
)
def test_weighted_takes_the_model_that_its_weights_want(weights: Weights, model: str) -> None:
    assert decide(answers(), weights) == model
