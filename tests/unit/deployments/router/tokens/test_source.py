from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from fake_serve import HANG, Response
from ray.exceptions import ActorDiedError
from small_tokenizer import bundle

from deployments.router.tokens.counting import TokenCounter
from deployments.router.tokens.prompts import Prompt
from deployments.router.tokens.source import TokenizerSource

DIGEST = bundle().digest()
PROMPT = Prompt({"prompt": "the fox"}, text_bytes=7)


class Entry:
    """A model of the directory whose replica hands over `answers`, one at each call."""

    def __init__(self, model: str, *answers: Any, digest: str | None = DIGEST) -> None:
        self.model = model
        self.unavailable: str | None = None
        self.description: dict[str, Any] | None = {
            "tokenizer": digest,
            "tokenizer_fault": None if digest else "no fast tokenizer",
        }
        self.answers = list(answers)
        self.calls = 0

    def handle(self, *, stream: bool) -> Any:
        return self

    def options(self, *, method_name: str) -> Any:
        assert method_name == "tokenizer"
        return SimpleNamespace(remote=self._remote)

    def _remote(self) -> Response:
        self.calls += 1
        return Response([self.answers.pop(0)])


@pytest.fixture
def counter() -> TokenCounter:
    return TokenCounter()


@pytest.fixture
def source(counter: TokenCounter) -> TokenizerSource:
    return TokenizerSource(counter)


def refresh(source: TokenizerSource, *entries: Any) -> None:
    asyncio.run(source.refresh(entries))


def exact(counter: TokenCounter, model: str) -> bool:
    return asyncio.run(counter.count(PROMPT, [model], 1000))[model].exact


def test_one_tokenizer_is_fetched_once_for_all_that_share_it(
    source: TokenizerSource, counter: TokenCounter
) -> None:
    first, second = Entry("a", bundle()), Entry("b", bundle())
    for _ in range(3):
        refresh(source, first, second)
    assert (first.calls, second.calls) == (1, 0)
    assert exact(counter, "a")
    assert exact(counter, "b")
    report = counter.report("b")
    assert (report["tokenizer"], report["fault"]) == (DIGEST, None)


def test_a_model_without_one_says_why(source: TokenizerSource, counter: TokenCounter) -> None:
    entry = Entry("a", digest=None)
    refresh(source, entry)
    assert entry.calls == 0
    assert not exact(counter, "a")
    assert counter.report("a")["fault"] == "no fast tokenizer"


def test_a_model_that_is_not_up_says_so(source: TokenizerSource, counter: TokenCounter) -> None:
    entry = Entry("a", bundle())
    entry.description, entry.unavailable = None, "deploying"
    refresh(source, entry)
    assert counter.report("a")["fault"] == "deploying"
    assert entry.calls == 0


def test_a_tokenizer_outlives_its_replicas(source: TokenizerSource, counter: TokenCounter) -> None:
    entry = Entry("a", bundle())
    refresh(source, entry)
    entry.description = None
    refresh(source, entry)
    assert exact(counter, "a")
    refresh(source)
    assert not counter.knows(DIGEST)


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (ActorDiedError(), "ActorDiedError"),
        (HANG, "TimeoutError"),
        (bundle("other"), "the replica described"),
    ],
)
def test_a_replica_that_does_not_hand_it_over_is_asked_again_later(
    source: TokenizerSource,
    counter: TokenCounter,
    monkeypatch: pytest.MonkeyPatch,
    answer: Any,
    fault: str,
) -> None:
    monkeypatch.setattr("deployments.router.tokens.source.FETCH_TIMEOUT_S", 0.01)
    entry = Entry("a", answer, bundle())
    for _ in range(2):
        refresh(source, entry)
        assert fault in counter.report("a")["fault"]
    assert entry.calls == 1
    monkeypatch.setattr("deployments.router.tokens.source.RETRY_S", 0.0)
    refresh(source, entry)
    assert counter.report("a")["fault"] is None
    assert exact(counter, "a")


def test_a_broken_template_is_a_fault(source: TokenizerSource, counter: TokenCounter) -> None:
    broken = bundle("{% if %}")
    refresh(source, Entry("a", broken, digest=broken.digest()))
    assert "TemplateSyntaxError" in counter.report("a")["fault"]


def test_a_new_tokenizer_takes_the_place_of_the_one_before(
    source: TokenizerSource, counter: TokenCounter
) -> None:
    refresh(source, Entry("a", bundle()))
    newer = bundle(split_special_tokens=True)
    refresh(source, Entry("a", newer, digest=newer.digest()))
    assert counter.report("a")["tokenizer"] == newer.digest()
    assert not counter.knows(DIGEST)
    assert exact(counter, "a")
