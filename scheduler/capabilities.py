"""What an engine takes and what a request needs of it, in one vocabulary.

A model whose engine says nothing of a feature is taken to have it: the engine has the last word.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

ALL_LOGPROBS = 2**31
"""Stands for `-1`: those of the whole vocabulary."""


class Feature(StrEnum):
    """Something that not every engine takes."""

    CHAT = "chat"
    COMPLETION = "completion"
    EMBEDDINGS = "embeddings"
    SCORES = "scores"
    OWN_TEMPLATE = "own_template"
    SYSTEM = "system"
    LATE_SYSTEM = "late_system"
    REPEATED_USER = "repeated_user"
    REPEATED_ASSISTANT = "repeated_assistant"
    ASSISTANT_FIRST = "assistant_first"
    ASSISTANT_LAST = "assistant_last"
    CONTINUATION = "continuation"
    TOOLS = "tools"
    TOOL_CHOICE = "tool_choice"
    TOOL_RESULTS = "tool_results"
    IMAGE = "image"
    AUDIO = "audio"
    VIDEO = "video"
    LOGPROBS = "logprobs"
    STRUCTURED = "structured"
    PROMPT_EMBEDS = "prompt_embeds"

    @property
    def of_template(self) -> bool:
        """Whether the chat template decides it."""
        return self in _OF_TEMPLATE


_OF_TEMPLATE = frozenset(
    {
        Feature.SYSTEM,
        Feature.LATE_SYSTEM,
        Feature.REPEATED_USER,
        Feature.REPEATED_ASSISTANT,
        Feature.ASSISTANT_FIRST,
        Feature.ASSISTANT_LAST,
        Feature.CONTINUATION,
        Feature.TOOL_RESULTS,
    }
)


@dataclass(frozen=True, slots=True)
class Need:
    """Something that a request needs of an engine.

    Attributes:
        field: Dotted name of the member that needs it, as the client wrote it.
        amount: How many, for what is counted: images, log probabilities; else 1.
    """

    feature: Feature
    field: str
    amount: int = 1


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a model is not for a request, or less than others.

    Attributes:
        field: The member of the request that it is about.
        reason: What the model lacks, and what would be needed.
    """

    field: str
    reason: str


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What is known of one engine.

    Attributes:
        lacks: What it rejects -> why, and what would be needed.
        ignores: What it takes and leaves out of the prompt -> how that is known.
        at_most: For what is counted, the most that one request may have.
    """

    lacks: Mapping[Feature, str] = field(default_factory=dict)
    ignores: Mapping[Feature, str] = field(default_factory=dict)
    at_most: Mapping[Feature, int] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, data: Mapping[str, Mapping[str, str | int]]) -> Capabilities:
        """From what a replica says of itself; features that are not known here are left out.

        Args:
            data: With the members `lacks`, `ignores` and `at_most`, all of them optional.
        """
        known = {feature.value: feature for feature in Feature}

        def part(name: str) -> dict[Feature, str | int]:
            return {known[n]: value for n, value in data.get(name, {}).items() if n in known}

        return cls(
            {feature: str(reason) for feature, reason in part("lacks").items()},
            {feature: str(reason) for feature, reason in part("ignores").items()},
            {feature: int(most) for feature, most in part("at_most").items()},
        )

    def refusal(self, needs: Sequence[Need], *, rendered: bool = False) -> Refusal | None:
        """The first need that is not met.

        Args:
            needs: Of the request.
            rendered: The chat template took this very request, which says more than its probes.
        """
        if not self.lacks and not self.at_most:
            return None
        for need in needs:
            reason = self.lacks.get(need.feature)
            if reason is not None and not (rendered and need.feature.of_template):
                return Refusal(need.field, reason)
            most = self.at_most.get(need.feature)
            if most is not None and need.amount > most:
                reason = f"its engine takes at most {most} ({need.feature}), got {need.amount}"
                return Refusal(need.field, reason)
        return None

    def neglect(self, needs: Sequence[Need]) -> Refusal | None:
        """The first need that would be left out of the prompt."""
        if not self.ignores:
            return None
        found = (need for need in needs if need.feature in self.ignores)
        need = next(found, None)
        return Refusal(need.field, self.ignores[need.feature]) if need else None

    @property
    def generates(self) -> bool:
        """Whether it may generate text: a pooling engine takes neither chat nor completion."""
        return Feature.CHAT not in self.lacks or Feature.COMPLETION not in self.lacks


UNKNOWN = Capabilities()
