"""What it takes to count tokens as one engine does: what a replica hands to the routers."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import orjson

logger = logging.getLogger("ray.serve")


@dataclass(frozen=True, slots=True)
class ChatFormat:
    """How messages become text.

    Attributes:
        template: Jinja.
        parts: The template takes a message's content as a list of parts, else as one text.
    """

    template: str
    parts: bool


@dataclass(frozen=True, slots=True)
class TokenizerBundle:
    """A tokenizer as an engine has loaded it, which its files alone do not tell.

    Some megabytes: 1.5 for a vocabulary of 49,000 tokens.

    Attributes:
        encoder: Of the `tokenizers` library, as JSON.
        split_special_tokens: Special tokens in a text are taken for text.
        special_tokens: What templates know by name, such as `bos_token`.
        chat: For requests without tools; `None` where the model takes no chat.
        chat_with_tools: For requests with tools.
        template_variables: What the template gets where a request does not say otherwise.
        none_hides_tools: `tool_choice: none` takes a request's tools away from the template.
    """

    encoder: str
    split_special_tokens: bool = False
    special_tokens: Mapping[str, str] = field(default_factory=dict)
    chat: ChatFormat | None = None
    chat_with_tools: ChatFormat | None = None
    template_variables: Mapping[str, Any] = field(default_factory=dict)
    none_hides_tools: bool = False

    def digest(self) -> str:
        """Names the content: models that count alike have the same."""
        return hashlib.sha256(orjson.dumps(asdict(self), option=orjson.OPT_SORT_KEYS)).hexdigest()


@dataclass(frozen=True, slots=True)
class TokenizerOffer:
    """A replica's bundle, or why it has none: no reason to answer no requests."""

    bundle: TokenizerBundle | None = None
    digest: str | None = None
    fault: str | None = None

    @classmethod
    def of(cls, export: Callable[[], TokenizerBundle]) -> TokenizerOffer:
        """Take the bundle out of an engine; whatever goes wrong is kept as a fault."""
        try:
            bundle = export()
            return cls(bundle, bundle.digest())
        except Exception as error:
            logger.warning("input tokens are going to be estimated: %s", error)
            return cls(fault=str(error))

    def describe(self) -> dict[str, str | None]:
        """The part of a replica's description."""
        return {"tokenizer": self.digest, "tokenizer_fault": self.fault}

    def bundle_or_raise(self) -> TokenizerBundle:
        """The bundle.

        Raises:
            LookupError: There is none.
        """
        if self.bundle is None:
            raise LookupError(self.fault)
        return self.bundle
