"""What a decision keeps beside the choice itself, for those who look at it later."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BanditReport:
    """So that feedback on a decision can teach.

    Attributes:
        context: The numbers of the prompt that feedback is learnt by.
        expected_reward: Of the chosen model, in 0..1.
        best: The model with the highest expected reward.
        explored: The policy `bandit` took another one, to learn about it.
    """

    context: tuple[float, ...]
    expected_reward: float
    best: str
    explored: bool


@dataclass(frozen=True, slots=True)
class ShadowChoice:
    """What a second policy would have done with a request.

    Attributes:
        policy: Its name.
        model: Its choice, `None` where it would have refused.
        reason: Why it would have refused, else empty.
    """

    policy: str
    model: str | None
    reason: str = ""
