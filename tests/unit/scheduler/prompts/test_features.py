from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.prompts.features import BUCKETS, COUNT_NAMES, HEAD_CHARS, TAIL_CHARS, extract


def count(text: str, name: str) -> float:
    return float(extract(text).counts[COUNT_NAMES.index(name)])


def plain(text: str, name: str) -> int:
    """A count before its logarithm."""
    return round(float(np.expm1(count(text, name))))


@settings(deadline=None)
@given(st.text(max_size=300))
def test_any_text_has_finite_features_of_one_shape(text: str) -> None:
    features = extract(text)
    assert features.counts.shape == (len(COUNT_NAMES),)
    assert np.isfinite(features.counts).all()
    assert (np.diff(features.terms) > 0).all()
    assert ((features.terms >= 0) & (features.terms < BUCKETS)).all()
    assert features.terms.shape == features.frequencies.shape
    assert np.isin(features.words, features.terms).all()


def test_golden_counts() -> None:
    text = "Which of 12 is not 3.5?\nA. yes\nB. no 7\nC. 1,000 times"
    found = {
        name: plain(text, name)
        for name in ("characters", "words", "numbers", "decimals", "longest number", "options")
    }
    assert found == {
        "characters": 53,
        "words": 16,
        "numbers": 6,
        "decimals": 1,
        "longest number": 3,
        "options": 3,
    }
    assert plain(text, "digits in options") == 2
    assert plain(text, "before options") == 24
    assert plain(text, "range of options") == len("C. 1,000 times") - len("A. yes")
    assert plain(text, "negation words") == 2
    assert plain(text, "question words") == 1
    assert count(text, "begins with which") == 1
    assert (count(text, "begins large"), count(text, "begins small")) == (1, 0)
    assert count("Really?\n", "ends with ?") == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", 0),
        (" .,\n", 0),
        ("don’t stop", 3),
        ("привет мир", 2),
        ("你好吗", 3),
        ("a漢b", 3),
        ("नमस्ते", 6),
        ("😀 hi", 2),
        ("\ud800", 0),
    ],
)
def test_words_in_any_script(text: str, words: int) -> None:
    assert len(extract(text).words) == words


def test_equal_words_fall_into_equal_buckets_wherever_they_stand() -> None:
    words = extract("The cat saw the CAT, cats and the cathedral.").words
    assert words[0] == words[3] == words[7]
    assert words[1] == words[4]
    assert len({int(word) for word in words}) == 6


def test_neighbours_and_the_ends_of_words_are_terms_too() -> None:
    assert np.isin(extract("red wine").terms, extract("a glass of red wine").terms).all()
    assert not np.isin(extract("red wine").terms, extract("wine is red").terms).all()
    shared = np.intersect1d(extract("translations").terms, extract("translating").terms)
    assert len(shared) == 1


def test_of_a_megabyte_only_the_ends_are_read() -> None:
    head, tail = "begin " * 1000, " end" * 1000
    long = extract(head + "x y z " * 200_000 + tail)
    other = extract(head + "q r s " * 200_000 + tail)
    assert (long.terms == other.terms).all()
    assert long.frequencies.sum() < 2 * (HEAD_CHARS + TAIL_CHARS)
    assert plain(head + "x y z " * 200_000 + tail, "characters") == 1_210_000
