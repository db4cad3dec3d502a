"""The tries of one request, for `routing.attempts` and the record; what is done is elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from scheduler.costs.observations import Observation
from scheduler.sequential.steps import Step


@dataclass(frozen=True, slots=True)
class Judgement:
    """Whether an answer of a cascade was taken.

    Attributes:
        accept_above: The mean log probability that it needed.
        observation: What it took.
    """

    accept_above: float
    accepted: bool
    observation: Observation

    def to_dict(self) -> dict[str, Any]:
        """For `routing.attempts`."""
        return {
            "mean_logprob": self.observation.mean_logprob,
            "accept_above": self.accept_above,
            "accepted": self.accepted,
            "runtime_s": self.observation.runtime_s,
            "energy_joules": self.observation.energy_joules,
        }


@dataclass(frozen=True, slots=True)
class StepJudgement:
    """What the policy `sequential` did after an answer.

    Attributes:
        accepted: The client gets this answer.
        observation: What it took.
        answer: In comparable form, shortened; `None` where it has none.
        agrees_with: Models whose earlier answers are the same.
        step: The action and why.
    """

    accepted: bool
    observation: Observation
    answer: str | None
    agrees_with: tuple[str, ...]
    step: Step

    def to_dict(self) -> dict[str, Any]:
        """For `routing.attempts`."""
        return {
            "accepted": self.accepted,
            "answer": self.answer,
            "agrees_with": list(self.agrees_with),
            "mean_logprob": self.observation.mean_logprob,
            "runtime_s": self.observation.runtime_s,
            "energy_joules": self.observation.energy_joules,
            "step": self.step.to_dict(),
        }


@dataclass(slots=True)
class Attempt:
    """One try, for the record.

    Attributes:
        begins: From nothing, or behind what an earlier one has generated.
        exact: The answer is as likely as one that nothing disturbed.
        refused: It began nothing: its queue was full, or it was going away.
        output_tokens: Generated before it broke, by all tries together, or in a rejected answer.
        error: Why it broke, `None` while it has not.
        judged: Whether its answer was accepted, `None` where it was not judged.
    """

    model: str
    begins: Literal["anew", "by token ids", "by text", "by tool call"] = "anew"
    exact: bool = True
    refused: bool = False
    replica_id: str | None = None
    output_tokens: int | None = None
    error: str | None = None
    judged: Judgement | StepJudgement | None = None

    @property
    def rejected(self) -> Observation | None:
        """What an answer took that the client did not get."""
        return self.judged.observation if self.judged and not self.judged.accepted else None

    def to_dict(self) -> dict[str, Any]:
        """For `routing.attempts`."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        return fields | {"judged": self.judged.to_dict() if self.judged else None}
