"""A tokenizer small enough for unit tests: bytes with a few merges, and special tokens."""

from __future__ import annotations

import json
from typing import Any

from tokenizers import AddedToken, Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import BpeTrainer

from deployments.links.tokenizer_bundle import ChatFormat, TokenizerBundle

TEMPLATE = (
    "{% for message in messages %}<s>{{ message.role }}: {{ message.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant:{% endif %}"
)


def encoder(**changes: Any) -> str:
    """The JSON of a tokenizer that puts `<s>` before a text where special tokens are asked for."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    trainer = BpeTrainer(vocab_size=300, initial_alphabet=ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator(["the quick brown fox jumps over the lazy dog"] * 9, trainer)
    tokenizer.add_special_tokens([AddedToken("<s>"), AddedToken("</s>")])
    start = tokenizer.token_to_id("<s>")
    tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", start)])
    return json.dumps(json.loads(tokenizer.to_str()) | changes)


ENCODER = encoder()


def bundle(
    template: str | None = TEMPLATE, *, parts: bool = False, **fields: Any
) -> TokenizerBundle:
    chat = None if template is None else ChatFormat(template, parts)
    fields = {
        "chat": chat,
        "chat_with_tools": chat,
        "special_tokens": {"bos_token": "<s>"},
    } | fields
    return TokenizerBundle(ENCODER, **fields)
