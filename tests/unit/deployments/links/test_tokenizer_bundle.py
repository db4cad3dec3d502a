from __future__ import annotations

import pickle
from dataclasses import replace

import pytest
from small_tokenizer import bundle

from deployments.links.tokenizer_bundle import ChatFormat, TokenizerBundle, TokenizerOffer


def test_the_digest_names_everything_that_counts() -> None:
    one = bundle()
    others = [
        replace(one, encoder=one.encoder + " "),
        replace(one, split_special_tokens=True),
        replace(one, special_tokens={}),
        replace(one, chat=ChatFormat("x", parts=False)),
        replace(one, chat=ChatFormat(one.chat.template, parts=True) if one.chat else None),
        replace(one, chat_with_tools=None),
        replace(one, template_variables={"a": 1}),
        replace(one, none_hides_tools=True),
    ]
    assert len({b.digest() for b in (one, *others)}) == len(others) + 1
    assert pickle.loads(pickle.dumps(one)).digest() == bundle().digest()
    tokens = {"a": "1", "b": "2"}
    turned = dict(reversed(tokens.items()))
    digests = {replace(one, special_tokens=t).digest() for t in (tokens, turned)}
    assert len(digests) == 1


def test_a_replica_offers_its_bundle() -> None:
    offer = TokenizerOffer.of(bundle)
    assert offer.describe() == {"tokenizer": bundle().digest(), "tokenizer_fault": None}
    assert offer.bundle_or_raise() == bundle()


def test_a_replica_without_one_says_why(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> TokenizerBundle:
        raise RuntimeError("no fast tokenizer")

    offer = TokenizerOffer.of(fail)
    assert offer.describe() == {"tokenizer": None, "tokenizer_fault": "no fast tokenizer"}
    assert "no fast tokenizer" in caplog.text
    with pytest.raises(LookupError, match="no fast tokenizer"):
        offer.bundle_or_raise()
