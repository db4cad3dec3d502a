"""What one request may ask for: `limits` of the router, `vetting` of a model."""

from __future__ import annotations

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from deployments.config.base import Strict
from deployments.config.replica import VettingLimits


class Limits(Strict):
    """What one request may ask for; more is refused with 400, or 431 where it is the headers."""

    prompt_tokens: PositiveInt = Field(
        default=1_000_000, description="Input tokens of all its prompts, where every model has more"
    )
    max_tokens: PositiveInt = Field(default=131_072, description="Its bound of generated tokens.")
    n: PositiveInt = Field(default=64, description="Answers to each prompt.")
    prompts: PositiveInt = Field(default=256, description="Prompts of a plain completion.")
    answers: PositiveInt = Field(default=256, description="Answers to all prompts together.")
    inputs: PositiveInt = Field(
        default=2_048,
        description="Inputs of an embedding request, texts on each side of a rerank or score.",
    )
    stop: PositiveInt = Field(default=32, description="Stop sequences.")
    header_bytes: PositiveInt = Field(default=16_384, description="Names and values together.")
    containers: PositiveInt = Field(default=32_768, description="Arrays and objects of a body.")
    values: PositiveInt = Field(default=500_000, description="Members and items of a body.")
    members: PositiveInt = Field(
        default=65_536,
        description="The same, without token ids of `prompt`, `input` and `tokens`.",
    )
    depth: PositiveInt = Field(default=128, description="Arrays and objects within each other.")
    messages: PositiveInt = Field(default=4_096, description="Of a chat; `documents` as well.")
    parts: PositiveInt = Field(default=8_192, description="Parts of all messages of a chat.")
    tools: PositiveInt = Field(default=256, description="Of a chat.")
    logprobs: NonNegativeInt = Field(
        default=20, description="Of a token of the answer (`top_logprobs`) or the prompt."
    )
    beams: PositiveInt = Field(default=16, description="`n` with `use_beam_search`.")
    stop_bytes: PositiveInt = Field(
        default=1_024, description="Characters of a stop sequence or of one of `bad_words`."
    )
    bad_words: PositiveInt = Field(default=256, description="Number of `bad_words`.")
    token_ids: PositiveInt = Field(
        default=1_024,
        description="Entries of `logit_bias`, `allowed_token_ids` or `logprob_token_ids`.",
    )
    template_bytes: PositiveInt = Field(
        default=4_096,
        description="JSON of `chat_template_kwargs`; 256 times as much for all messages together.",
    )
    schema_bytes: PositiveInt = Field(
        default=524_288,
        description="JSON of `response_format`, `structured_outputs`, or all `tools`.",
    )
    schema_depth: PositiveInt = Field(
        default=64, description="Levels of one of those, and groups in a pattern or grammar."
    )
    schema_nodes: PositiveInt = Field(
        default=10_000, description="Arrays and objects in one of those."
    )
    schema_properties: PositiveInt = Field(default=5_000, description="Properties in one of those.")
    schema_choices: PositiveInt = Field(
        default=5_000, description="Values of all `enum` or `choice` in one of those."
    )
    schema_items: PositiveInt = Field(
        default=10_000, description="`minItems`, `maxItems` and the like."
    )
    schema_length: PositiveInt = Field(
        default=1_000_000, description="`minLength` and `maxLength`."
    )
    pattern_length: PositiveInt = Field(
        default=16_384, description="Characters of a regular expression."
    )
    grammar_length: PositiveInt = Field(
        default=65_536,
        description="Characters of a grammar, and of all patterns and grammars together in one of "
        "those.",
    )
    repetition_tokens: PositiveInt = Field(
        default=256,
        description="`max_pattern_size` of `repetition_detection` times its `min_count`.",
    )
    repetitions: PositiveInt = Field(
        default=1_000,
        description="Counted repetitions in a pattern or grammar, nested ones multiplied, as in "
        "RE2.",
    )
    engine_fields: tuple[str, ...] = Field(
        default=(),
        description="Members for the inside of an engine that clients may send, such as "
        "`vllm_xargs`.",
    )


class VettingConfig(Strict):
    """What the compilation of a schema, regular expression or grammar may take in a replica."""

    seconds: PositiveFloat = Field(default=5.0, description="More is rejected with 400.")
    memory_bytes: PositiveInt = Field(default=2**30, description="More is rejected with 400.")

    def limits(self) -> VettingLimits:
        """The same for a replica."""
        return VettingLimits(self.seconds, self.memory_bytes)
