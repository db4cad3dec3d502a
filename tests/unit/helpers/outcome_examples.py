"""Outcomes with a known law: what a prompt is about decides who is right."""

from __future__ import annotations

import numpy as np

from profiling.quality.outcomes import Outcomes

NOUNS = ("river", "engine", "market", "planet", "violin", "harbour", "garden", "castle")


def made_up(n: int, seed: int = 0) -> Outcomes:
    """Half of the prompts are about algebra. `small` is right at 0.9 of the others and 0.2 of
    these, `large` at 0.95 of the others and 0.85 of these. `large` costs 5, `small` 1."""
    rng = np.random.default_rng(seed)
    hard = rng.random(n) < 0.5
    prompts = tuple(
        f"{'Examine the algebra' if h else 'Discuss the colours'} of the {rng.choice(NOUNS)} "
        f"near the {rng.choice(NOUNS)}, case {i}."
        for i, h in enumerate(hard)
    )
    chances = np.where(hard[:, None], [0.2, 0.85], [0.9, 0.95])
    scores = (rng.random((n, 2)) < chances).astype(float)
    return Outcomes(prompts, ("small", "large"), scores, np.tile([1.0, 5.0], (n, 1)))
