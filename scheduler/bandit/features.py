"""What the bandit knows of a prompt: a dozen numbers about -1..1, in some microseconds."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scheduler.prompts.tasks import TASKS

HEAD_CHARS = 2000
TAIL_CHARS = 60
CODE_SIGNS = b"{}();=<>_\\"
DIGITS = b"0123456789"
BEYOND_ASCII = bytes(range(128, 256))
FEATURES = (
    "one",
    *TASKS,
    "length",
    "digits",
    "lines",
    "code_signs",
    "options",
    "question",
    "beyond_ascii",
)
"""Names of the numbers, in order; what was learnt under other names is not used."""


@dataclass(frozen=True, slots=True)
class PromptContext:
    """What feedback on a prompt is learnt by.

    Attributes:
        numbers: In the order of `FEATURES`.
    """

    numbers: tuple[float, ...]


def context_of(text: str, task: str, input_tokens: int) -> PromptContext:
    """The numbers of one prompt.

    Args:
        text: What is asked; empty where the prompt came as token ids.
        task: Its class. One that is not among `TASKS` is no feature.
        input_tokens: Stand in for the length where there is no text, four characters to one.
    """
    head = text[:HEAD_CHARS]
    data = head.encode(errors="surrogatepass")
    chars = len(text) or 4 * input_tokens
    numbers = (
        1.0,
        *(float(task == name) for name in TASKS),
        max(-1.0, min((math.log1p(chars) - 5.0) / 3.0, 1.5)),
        min(5.0 * _share(data, DIGITS), 1.0),
        math.log1p(head.count("\n")) / 4.0,
        min(5.0 * _share(data, CODE_SIGNS), 1.0),
        float("\nB." in head or "\nB)" in head or "\n(B)" in head),
        float(text[-TAIL_CHARS:].rstrip().endswith(("?", "？"))),
        _share(data, BEYOND_ASCII),
    )
    return PromptContext(numbers)


def _share(data: bytes, among: bytes) -> float:
    return 1.0 - len(data.translate(None, among)) / len(data) if data else 0.0
