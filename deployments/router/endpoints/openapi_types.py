"""Bodies of the API as its OpenAPI document describes them: what the router reads, and no more."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt

from deployments.router.wire.openai import RoutingFields


class StreamOptions(BaseModel):
    """The optional body field `stream_options`."""

    model_config = ConfigDict(extra="allow")
    include_usage: bool | None = None


class CommonFields(BaseModel):
    """What the router reads of any completion request."""

    model_config = ConfigDict(extra="allow")
    model: str | None = Field(
        None,
        min_length=1,
        description="`auto`, a model's id or an alias; left out, `default_model`.",
    )
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1)
    routing: RoutingFields | None = None


class ChatMessage(BaseModel):
    """One message; vLLM checks the rest of it."""

    model_config = ConfigDict(extra="allow")
    role: str
    content: str | list[dict[str, Any]] | None = None


class ChatRequest(CommonFields):
    """Body of `POST /v1/chat/completions`."""

    messages: list[ChatMessage] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1)


Text = str
TokenIds = list[NonNegativeInt]


class CompletionRequest(CommonFields):
    """Body of `POST /v1/completions`."""

    prompt: Text | TokenIds | list[Text] | list[TokenIds]
    echo: bool | None = None


class PooledFields(BaseModel):
    """What the router reads of any request for numbers about texts."""

    model_config = ConfigDict(extra="allow")
    model: str = Field(min_length=1, description="A model's id or an alias of one, not `auto`.")
    user: str | None = None
    routing: RoutingFields | None = None


class EmbeddingRequest(PooledFields):
    """Body of `POST /v1/embeddings`."""

    input: Text | TokenIds | list[Text] | list[TokenIds]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None


class TextObject(BaseModel):
    """A text, or what is more than that, in parts."""

    model_config = ConfigDict(extra="allow")
    content: list[dict[str, Any]]


Texts = str | TextObject | list[str | TextObject]


class RerankRequest(PooledFields):
    """Body of `POST /v1/rerank`."""

    query: str | TextObject
    documents: Texts
    top_n: int | None = Field(None, ge=0)


class ScoreRequest(PooledFields):
    """Body of `POST /v1/score`; vLLM's other names of the two sides are taken too."""

    text_1: Texts
    text_2: Texts


class MessageBlock(BaseModel):
    """One block of a message's content."""

    model_config = ConfigDict(extra="allow")
    type: str


class MessageTurn(BaseModel):
    """One turn of a conversation, as Anthropic has it."""

    model_config = ConfigDict(extra="forbid")
    role: Literal["user", "assistant", "system"]
    content: str | list[MessageBlock]


class MessagesPrompt(BaseModel):
    """Body of `POST /v1/messages/count_tokens`."""

    model_config = ConfigDict(extra="allow")
    model: str | None = Field(None, min_length=1)
    messages: list[MessageTurn] = Field(min_length=1)
    system: str | list[MessageBlock] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: dict[str, Any] | None = None


class MessagesRequest(MessagesPrompt):
    """Body of `POST /v1/messages`."""

    max_tokens: int = Field(ge=1)
    stream: bool | None = None
    stop_sequences: list[str] | None = None
    routing: RoutingFields | None = None


class ResponseItem(BaseModel):
    """One item of a response's input."""

    model_config = ConfigDict(extra="allow")
    type: str | None = None


class ResponsesRequest(BaseModel):
    """Body of `POST /v1/responses`."""

    model_config = ConfigDict(extra="allow")
    model: str | None = Field(None, min_length=1)
    input: str | list[ResponseItem]
    instructions: str | None = None
    max_output_tokens: int | None = Field(None, ge=1)
    previous_response_id: str | None = Field(
        None, description="A response of the record, where `record_content` is on."
    )
    stream: bool | None = None
    tools: list[dict[str, Any]] | None = None
    routing: RoutingFields | None = None


class TokenizeText(BaseModel):
    """Body of `POST /tokenize`: a text."""

    model_config = ConfigDict(extra="allow")
    model: str | None = Field(None, min_length=1)
    prompt: str = Field(min_length=1)
    add_special_tokens: bool | None = None
    return_token_strs: bool | None = None


class TokenizeChat(BaseModel):
    """Body of `POST /tokenize`: a conversation."""

    model_config = ConfigDict(extra="allow")
    model: str | None = Field(None, min_length=1)
    messages: list[ChatMessage] = Field(min_length=1)
    return_token_strs: bool | None = None


class DetokenizeRequest(BaseModel):
    """Body of `POST /detokenize`."""

    model_config = ConfigDict(extra="allow")
    model: str | None = Field(None, min_length=1)
    tokens: list[int]


class AnthropicErrorDetails(BaseModel):
    """What is wrong, as Anthropic says it."""

    type: str
    message: str
    param: str | None = None
    code: str | None = None


class AnthropicErrorObject(BaseModel):
    """Every error of `/v1/messages` and below."""

    type: Literal["error"]
    error: AnthropicErrorDetails


class ErrorDetails(BaseModel):
    """What is wrong."""

    message: str
    type: Literal["invalid_request_error", "server_error"]
    param: str | None = Field(description="Offending field, dotted.")
    code: str | None


class ErrorObject(BaseModel):
    """Every answer that is an error."""

    error: ErrorDetails
