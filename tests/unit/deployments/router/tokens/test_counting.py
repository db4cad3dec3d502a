from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from small_tokenizer import bundle

from deployments.router.tokens.counting import (
    CACHED_COUNTS,
    INLINE_BYTES,
    LEAST_RENDERED,
    RENDERED_TIMES,
    THREADS,
    TokenCount,
    TokenCounter,
    TokenizerState,
)
from deployments.router.tokens.model_tokenizer import ModelTokenizer
from deployments.router.tokens.prompts import Prompt

EXACT_BYTES = 200_000
LOADED = TokenizerState("d1", None)


class Watched(ModelTokenizer):
    """Says how often it counted, and in which threads."""

    def __init__(self) -> None:
        super().__init__(bundle())
        self.threads: list[str] = []

    def count(self, prompt: Prompt, *args: Any) -> int:
        self.threads.append(threading.current_thread().name)
        return super().count(prompt, *args)


@pytest.fixture
def tokenizer() -> Watched:
    return Watched()


@pytest.fixture
def counter(tokenizer: Watched) -> TokenCounter:
    """`a` and `b` share a tokenizer; `c` has none."""
    counter = TokenCounter()
    counter.add("d1", tokenizer)
    counter.assign({"a": LOADED, "b": LOADED, "c": TokenizerState(None, "slow tokenizer")})
    return counter


def text(text: str) -> Prompt:
    return Prompt({"prompt": text}, text_bytes=len(text))


def count(
    counter: TokenCounter, prompt: Prompt, *models: str, exact_bytes: int = EXACT_BYTES
) -> Any:
    counts = asyncio.run(counter.count(prompt, models or ("a", "b", "c"), exact_bytes))
    return {model: count[:2] for model, count in counts.items()}


def test_models_with_one_tokenizer_are_counted_once(
    counter: TokenCounter, tokenizer: Watched
) -> None:
    counts = count(counter, text("the lazy dog"))
    exact = ModelTokenizer(bundle()).count(text("the lazy dog"))
    assert counts == {"a": (exact, True), "b": (exact, True), "c": (3, False)}
    assert tokenizer.threads == ["MainThread"]


def test_what_was_counted_is_known(counter: TokenCounter, tokenizer: Watched) -> None:
    first = count(counter, text("the lazy dog"), "a")
    assert count(counter, text("the lazy dog"), "b")["b"] == first["a"]
    assert len(tokenizer.threads) == 1
    count(counter, Prompt({"prompt": "the lazy dog", "add_special_tokens": False}, 12), "a")
    assert len(tokenizer.threads) == 2


def test_what_is_known_is_bounded(
    counter: TokenCounter, tokenizer: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert CACHED_COUNTS == 8192
    monkeypatch.setattr("deployments.router.tokens.counting.CACHED_COUNTS", 2)
    for word in ("one", "two", "one", "three", "one", "two"):
        count(counter, text(word), "a")
    # "two" was the least recently used when "three" came.
    assert len(tokenizer.threads) == 4


def test_long_prompts_are_counted_in_a_thread(counter: TokenCounter, tokenizer: Watched) -> None:
    count(counter, text("x" * (INLINE_BYTES - 20)), "a")
    count(counter, text("x" * INLINE_BYTES), "a")
    # Nor does it help to have no text: the template reads the rest too.
    count(counter, Prompt({"messages": [{"role": "user"}] * 400}, text_bytes=0), "a")
    inline, *threads = tokenizer.threads
    assert inline == "MainThread"
    assert [name.split("_")[0] for name in threads] == ["count", "count"]


def test_the_event_loop_goes_on_meanwhile(counter: TokenCounter) -> None:
    async def steps_while_counting() -> int:
        counting = asyncio.create_task(counter.count(text("the fox " * 20_000), ["a"], EXACT_BYTES))
        steps = 0
        while not counting.done():
            await asyncio.sleep(0)
            steps += 1
        assert (await counting)["a"].exact
        return steps

    assert asyncio.run(steps_while_counting()) > 100


def test_prompts_beyond_the_limit_are_estimated(counter: TokenCounter, tokenizer: Watched) -> None:
    counts = count(counter, text("x" * 400), "a", exact_bytes=100)
    assert counts == {"a": (100, False)}
    assert tokenizer.threads == []


@pytest.mark.parametrize("exact_bytes", [2_000, 50_000])
def test_what_a_template_makes_too_much_of_is_estimated(
    counter: TokenCounter, exact_bytes: int
) -> None:
    most = max(LEAST_RENDERED, RENDERED_TIMES * exact_bytes)
    for times, exact in ((most // 10, True), (most // 10 + 1, False)):
        counter.add(
            "d1", ModelTokenizer(bundle(f"{{% for i in range({times}) %}}{'x' * 10}{{% endfor %}}"))
        )
        prompt = Prompt({"messages": [{"role": "user", "content": str(times)}]}, text_bytes=4)
        assert count(counter, prompt, "a", exact_bytes=exact_bytes)["a"][1] is exact


class Stuck(ModelTokenizer):
    """Counts when it is allowed to."""

    def __init__(self) -> None:
        super().__init__(bundle())
        self.allowed = threading.Event()
        self.begun: list[str] = []

    def count(self, prompt: Prompt, *args: Any) -> int:
        self.begun.append(prompt.members["prompt"][:1])
        assert self.allowed.wait(20)
        return super().count(prompt, *args)


def test_prompts_that_wait_long_for_their_count_are_estimated(
    counter: TokenCounter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deployments.router.tokens.counting.PATIENCE_S", 0.05)
    stuck = Stuck()
    counter.add("d1", stuck)
    slow = [text("s" * 3_000 + str(number)) for number in range(THREADS)]
    waiting = text("w" * 3_000)

    async def scenario() -> None:
        try:
            counts = [counter.count(prompt, ["a"], EXACT_BYTES) for prompt in (*slow, waiting)]
            for counted in await asyncio.gather(*counts):
                assert not counted["a"].exact
        finally:
            stuck.allowed.set()
        monkeypatch.setattr("deployments.router.tokens.counting.PATIENCE_S", 20.0)
        # An estimate is not remembered, and what nobody waits for is not counted.
        counted = await counter.count(waiting, ["a"], EXACT_BYTES)
        assert counted["a"].exact
        assert stuck.begun == ["s"] * THREADS + ["w"]

    asyncio.run(scenario())


def test_token_ids_need_no_tokenizer(counter: TokenCounter, tokenizer: Watched) -> None:
    prompt = Prompt({"prompt": [1] * 9}, text_bytes=0, other_tokens=9, token_ids=9)
    assert count(counter, prompt, exact_bytes=1) == dict.fromkeys("abc", (9, True))
    assert counter.estimate(prompt, "unknown")[:2] == (9, True)
    assert tokenizer.threads == []


def test_what_the_tokenizer_cannot_count_is_estimated_and_tried_once(
    counter: TokenCounter, tokenizer: Watched
) -> None:
    image = {"type": "image_url", "image_url": {"url": "x"}}
    prompt = Prompt({"messages": [{"role": "user", "content": [image]}]}, 40, other_tokens=5)
    for _ in range(2):
        assert count(counter, prompt, "a", "b") == {"a": (15, False), "b": (15, False)}
    assert len(tokenizer.threads) == 1


def test_what_the_chat_template_rejects_is_known_before_an_engine_says_so(
    counter: TokenCounter,
) -> None:
    refusing = "{% if messages[0].role == 'system' %}{{ raise_exception('No system') }}{% endif %}x"
    counter.add("d1", ModelTokenizer(bundle(refusing)))
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "x"}]
    for said, rejection in ((messages, "No system"), (messages[1:], "")):
        prompt = Prompt({"messages": said}, 9, other_tokens=5)
        for _ in range(2):
            counts = asyncio.run(counter.count(prompt, ["a", "c"], EXACT_BYTES))
            assert (counts["a"].rejection, counts["a"].exact) == (rejection, not rejection)
            assert counts["c"].rejection == ""


def test_nested_too_deep_is_estimated(counter: TokenCounter) -> None:
    nested: Any = []
    for _ in range(300):
        nested = [nested]
    assert count(counter, Prompt({"messages": [], "tools": nested}, 4), "a") == {"a": (1, False)}


def test_estimates_learn_from_answers_and_tell_their_error(counter: TokenCounter) -> None:
    for _ in range(300):
        counter.learn(text("x" * 200), "c", TokenCount(50, exact=False), 100)
        counter.learn(text("x" * 300), "a", TokenCount(100, exact=True), 100)
    assert count(counter, text("x" * 1000), "c") == {"c": (pytest.approx(500, abs=5), False)}
    report = counter.report("c")
    assert report["bytes_per_token"] == pytest.approx(2, abs=0.02)
    assert report["estimate_error"] == pytest.approx(0, abs=0.03)
    assert (report["counted"], report["estimated"]) == (0, 300)
    assert report["fault"] == "slow tokenizer"
    # `b` has the tokenizer of `a`, and with it what was learnt.
    assert counter.report("b")["bytes_per_token"] == pytest.approx(3, abs=0.02)


def test_counts_that_were_wrong_are_told(
    counter: TokenCounter, caplog: pytest.LogCaptureFixture
) -> None:
    for tokens in (7, 8, 9):
        counter.learn(text("x"), "a", TokenCount(7, exact=True), tokens)
    assert [counter.report("a")[n] for n in ("counted", "miscounted")] == [3, 2]
    assert caplog.text.count("a counts 8 input tokens, not 7") == 1
    assert "not 9" not in caplog.text


def test_nothing_is_known_of_a_model_at_first() -> None:
    counter = TokenCounter()
    assert count(counter, text("x" * 8), "new") == {"new": (2, False)}
    assert counter.report("new") == {
        "tokenizer": None,
        "fault": "not known yet",
        "counted": 0,
        "miscounted": 0,
        "estimated": 0,
        "bytes_per_token": 4,
        "estimate_error": None,
    }


def test_tokenizers_go_with_the_last_model_that_has_them(counter: TokenCounter) -> None:
    counter.learn(text("x" * 8), "a", None, 8)
    counter.assign({"b": LOADED})
    assert counter.knows("d1")
    assert counter.report("a")["fault"] == "not known yet"
    counter.assign({"b": TokenizerState("d2", "not fetched")})
    assert not counter.knows("d1")
    assert count(counter, text("x" * 8), "b") == {"b": (2, False)}
