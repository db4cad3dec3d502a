"""What kind of work a prompt asks for. Rules over a few words, microseconds, no dependencies.

The instruction stands at the beginning or at the end of a prompt, so only these are read: what is
quoted between them must not decide.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

HEAD_CHARS = 600
TAIL_CHARS = 300

CODE = "code"
MATHEMATICS = "mathematics"
TRANSLATION = "translation"
SUMMARIZATION = "summarization"
EXTRACTION = "extraction"
REASONING = "reasoning"
KNOWLEDGE = "knowledge"
CHAT = "chat"
TASKS = (
    CODE,
    MATHEMATICS,
    TRANSLATION,
    SUMMARIZATION,
    EXTRACTION,
    REASONING,
    KNOWLEDGE,
    CHAT,
)

# The first task with one of its marks anywhere in what is read, lower case.
_MARKS: Mapping[str, tuple[str, ...]] = {
    TRANSLATION: (
        *("translate", "translation of", "into english", "into german", "into french"),
        *("into spanish", "auf deutsch", "übersetze", "traduis", "traduce", "переведи", "翻译"),
    ),
    SUMMARIZATION: (
        *("summarize", "summarise", "summary of", "tl;dr", "in one sentence:", "key points of"),
        *("fasse zusammen", "zusammenfassung", "résume", "resume el", "总结"),
    ),
    CODE: (
        *("```", "def ", "#include", "import ", "public static", "select * from", "</"),
        *("python", "javascript", "typescript", "sql query", "write a function", "regex"),
        *("unit test", "stack trace", "traceback", "write a program", "bash script", "c++"),
    ),
    EXTRACTION: (
        *("extract", "as json", "in json", "list all the", "find all the names", "named entit"),
        *("fill in the fields", "parse the following"),
    ),
    MATHEMATICS: (
        *("\\frac", "\\sqrt", "\\begin{", "calculate", "compute", "solve for", "equation"),
        *("how many", "how much", "what is the value of", "probability that", "derivative of"),
        *("integral of", "polynomial", "triangle", "perimeter", "remainder when", "prove that"),
    ),
    REASONING: (
        *("clue", "premise", "therefore", "puzzle", "riddle", "step by step", "logically"),
        *("which of the following", "statement 1", "must be true", "conclude"),
    ),
}
_ARITHMETIC = re.compile(r"\d\s*[-+*/^=×÷]\s*\(?\d")
_QUESTION = re.compile(
    r"(?:who|whom|whose|what|when|where|which|why|how|is|are|was|were|does|do|did|can|in which)\b"
)


def classify(prompt: str) -> str:
    """One of `TASKS`, by the first rule that fits; `chat` where none does."""
    text = prompt[:HEAD_CHARS].lower()
    if len(prompt) > HEAD_CHARS:
        text += "\n" + prompt[-TAIL_CHARS:].lower()
    for task, marks in _MARKS.items():
        if any(mark in text for mark in marks):
            return task
    if _ARITHMETIC.search(text):
        return MATHEMATICS
    if text.rstrip().endswith(("?", "？")) or _QUESTION.match(text.lstrip()):
        return KNOWLEDGE
    return CHAT
