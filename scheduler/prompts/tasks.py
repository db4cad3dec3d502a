"""What kind of work a prompt asks for: rules over a few words first, a fitted model after them.

The instruction stands at the beginning or at the end of a prompt, so only these are read: what is
quoted between them must not decide.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from scheduler.prompts.features import TextFeatures, extract
from scheduler.prompts.task_model import TaskModel

SHIPPED_MODEL = Path(__file__).parents[1] / "data" / "tasks.model"
"""The fitted model that comes with the program; its users read it."""
HEAD_CHARS = 600
TAIL_CHARS = 300
LEAST_NUMBERS = 3
"""In a question about a quantity, to be sure that it is to be computed."""

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

# A task is sure where one of its marks stands anywhere in what is read, in lower case.
_SURE: Mapping[str, tuple[str, ...]] = {
    TRANSLATION: (
        *("translate the", "translate this", "translate to", "translate into", "translate from"),
        *("auf deutsch", "übersetze", "traduis", "traduce", "переведи", "翻译"),
    ),
    SUMMARIZATION: (
        *("summarize", "summarise", "tl;dr", "key points of", "fasse zusammen"),
        *("resume el", "总结"),
    ),
    CODE: (
        *("```", "#include", "public static", "select * from", "write a function", "sql query"),
        *("write a python", "python function", "bash script", "unit test", "traceback (most"),
    ),
    EXTRACTION: (*("extract all", "extract the", "as json", "named entit"), "fill in the fields"),
    MATHEMATICS: (
        *("\\frac", "\\sqrt", "\\begin{", "solve for", "derivative of", "integral of"),
        *("remainder when", "perimeter of"),
    ),
    REASONING: ("clue(s)", "clue 1", "riddle", "logic puzzle"),
}
# Where there is no fitted model, these are believed too.
_LIKELY: Mapping[str, tuple[str, ...]] = {
    TRANSLATION: (
        *("translate", "translation of", "into english", "into german", "into french"),
        "into spanish",
    ),
    SUMMARIZATION: ("summary of", "in one sentence:", "zusammenfassung", "résume"),
    CODE: (
        *("def ", "import ", "</", "python", "javascript", "typescript", "regex", "stack trace"),
        *("traceback", "write a program", "c++"),
    ),
    EXTRACTION: ("extract", "in json", "list all the", "find all the names", "parse the following"),
    MATHEMATICS: (
        *("calculate", "compute", "equation", "how many", "how much", "what is the value of"),
        *("probability that", "polynomial", "triangle", "perimeter", "prove that"),
    ),
    REASONING: (
        *("clue", "premise", "therefore", "puzzle", "step by step", "logically"),
        *("which of the following", "statement 1", "must be true", "conclude"),
    ),
}
_ARITHMETIC = re.compile(r"\d\s*[-+*/^=×÷]\s*\(?\d")
_QUANTITY = re.compile(r"\bhow (?:many|much|long|old|far)\b")
_NUMBER = re.compile(r"\d+")
_LETTER = re.compile(r"[^\W\d_]")
_QUESTION = re.compile(
    r"(?:who|whom|whose|what|when|where|which|why|how|is|are|was|were|does|do|did|can|in which)\b"
)


def sure_task(prompt: str) -> str:
    """The task that a rule is sure of, empty where none is."""
    text = _read(prompt)
    if not _LETTER.search(text):
        return MATHEMATICS if _ARITHMETIC.search(text) else CHAT
    if task := _marked(text, _SURE):
        return task
    if _QUANTITY.search(text) and len(_NUMBER.findall(text)) >= LEAST_NUMBERS:
        return MATHEMATICS
    return ""


def classify(
    prompt: str, model: TaskModel | None = None, features: TextFeatures | None = None
) -> str:
    """One of `TASKS`, by the first rule that is sure, else by the model.

    Args:
        prompt: What is asked.
        model: Without it weaker marks decide.
        features: Of the prompt, where they are known already.
    """
    if sure := sure_task(prompt):
        return sure
    if model is not None:
        return model.classify(features or extract(prompt))
    text = _read(prompt)
    if likely := _marked(text, _LIKELY):
        return likely
    if _ARITHMETIC.search(text):
        return MATHEMATICS
    if text.rstrip().endswith(("?", "？")) or _QUESTION.match(text.lstrip()):
        return KNOWLEDGE
    return CHAT


def _read(prompt: str) -> str:
    text = prompt[:HEAD_CHARS].lower()
    if len(prompt) > HEAD_CHARS:
        text += "\n" + prompt[-TAIL_CHARS:].lower()
    return text


def _marked(text: str, marks_by_task: Mapping[str, tuple[str, ...]]) -> str:
    for task, marks in marks_by_task.items():
        if any(mark in text for mark in marks):
            return task
    return ""
