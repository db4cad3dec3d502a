"""A guess at the number of tokens of a text, for where the model's tokenizer is not at hand."""

from __future__ import annotations

BYTES_PER_TOKEN = 4
"""Usual for English prose with vocabularies of 32,000 to 128,000 tokens."""


def estimate_tokens(text: str) -> int:
    """About how many tokens a text has, rounded up; 0 only for an empty one.

    Bytes rather than characters, because tokenizers with a byte fallback spend more tokens on
    characters that take more bytes.
    """
    # Halves of surrogate pairs, legal in JSON and in arguments, must not make a count fail.
    size = len(text.encode("utf-8", errors="surrogatepass"))
    return -(-size // BYTES_PER_TOKEN)
