from __future__ import annotations

import zlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.errors import TaskModelError
from scheduler.prompts.features import extract
from scheduler.prompts.task_model import BUCKETS, TaskModel
from scheduler.prompts.tasks import SHIPPED_MODEL, TASKS, classify

SHIPPED = TaskModel.from_bytes(SHIPPED_MODEL.read_bytes())


@pytest.mark.parametrize(
    ("prompt", "task"),
    [
        ("A robe needs 3 bolts of cloth. How many bolts do 12 robes need?", "mathematics"),
        ("Sara sold a third of her cards and has twenty left. How many had she?", "mathematics"),
        (
            "Which enzyme breaks down starch?\nA. lipase\nB. amylase\nC. pepsin\nAnswer:",
            "knowledge",
        ),
        ("what is the capital of australia", "knowledge"),
        ("Write a poem about a lighthouse.", "chat"),
        ("Implement breadth-first search in Rust.", "code"),
        ("All cats are animals. Tom is a cat. Does it follow that Tom is an animal?", "reasoning"),
        ("What is the Polish word for umbrella?", "translation"),
    ],
)
def test_what_the_shipped_model_says_where_no_rule_is_sure(prompt: str, task: str) -> None:
    assert classify(prompt, SHIPPED) == task


def test_a_rule_that_is_sure_is_not_asked_again() -> None:
    contrary = replace(SHIPPED, intercepts=np.where(np.array(TASKS) == "chat", 1e3, 0.0))
    assert classify("Translate to German: Where is the station?", contrary) == "translation"
    assert classify("Implement breadth-first search in Rust.", contrary) == "chat"


@given(st.text())
def test_any_text_has_a_task(text: str) -> None:
    assert classify(text, SHIPPED) in TASKS
    assert np.isfinite(SHIPPED.scores(extract(text))).all()


def test_the_file_holds_the_model_and_is_small() -> None:
    data = SHIPPED.to_bytes()
    assert data == SHIPPED_MODEL.read_bytes()
    assert len(data) < 200_000
    assert SHIPPED.tasks == TASKS
    assert SHIPPED.terms.shape == (BUCKETS, len(TASKS))


def test_a_file_that_is_something_else_is_refused() -> None:
    data = SHIPPED.to_bytes()
    line, _, packed = data.partition(b"\n")
    changed = bytearray(zlib.decompress(packed))
    changed[5] ^= 1
    broken = (
        b"",
        b"{}\n",
        b"[]\n",
        b"\xff\n",
        data[:-10],
        line + b"\n" + zlib.compress(bytes(changed)),
        data.replace(b'"schema_version": 1', b'"schema_version": 2'),
        data.replace(b'"chat"', b'"talk"', 1),
    )
    for each in broken:
        with pytest.raises(TaskModelError):
            TaskModel.from_bytes(each)
    endless = replace(SHIPPED, intercepts=SHIPPED.intercepts * np.inf)
    with pytest.raises(TaskModelError, match="not usable"):
        TaskModel.from_bytes(endless.to_bytes())
