"""The one stream that a client gets, put together from the frames of those that generate it."""

from __future__ import annotations

from dataclasses import dataclass, field

from deployments.links.frames import Endpoint, Flag, Frame
from deployments.router.delivery.continuation import created_of, with_created, with_generated
from deployments.router.delivery.said import Said, without_opening
from deployments.router.wire.api_error import ApiError
from deployments.router.wire.error_codes import ErrorCode


@dataclass(slots=True)
class Stream:
    """What the client has got of a streamed answer.

    Attributes:
        endpoint: Whose chunks.
        single: The answer has one choice; of several nothing is kept.
        begun: The client has got something.
        chunks: What it has got, end marker and all that is in no chunk aside.
        ids: What the present model has generated.
        in_prompt: Tokens that models before it have generated: a part of its prompt.
        own_from: Where in `chunks` the present model begins.
        reopened: The present model makes a tool call that another one has begun.
    """

    endpoint: Endpoint
    single: bool
    begun: bool = False
    chunks: list[bytes] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    in_prompt: int = 0
    own_from: int = 0
    reopened: bool = False

    @property
    def said(self) -> Said:
        """Its text, reasoning and tool calls."""
        return Said.of(self.chunks, self.endpoint)

    @property
    def generated(self) -> int:
        """Tokens of it, by all models."""
        return self.in_prompt + len(self.ids)

    def hand_over(self, in_prompt: int, *, reopened: bool) -> None:
        """Another model goes on from here.

        Args:
            in_prompt: Tokens of the answer that are a part of its prompt.
            reopened: It makes a call that has begun.
        """
        self.own_from, self.ids = len(self.chunks), []
        self.in_prompt, self.reopened = in_prompt, reopened

    def forget(self) -> None:
        """The client has got nothing, and gets another answer."""
        self.chunks, self.ids = [], []
        self.begun = self.reopened = False
        self.in_prompt = self.own_from = 0


class Passage:
    """The frames of one try on their way into a stream.

    Args:
        stream: What the client has got before.
        counted: Input tokens as the first model's tokenizer counts them, `None` if unknown.
    """

    def __init__(self, stream: Stream, counted: int | None) -> None:
        self._stream = stream
        self._counted = counted
        self._created = created_of(stream.chunks[0]) if stream.chunks else None
        # Every stream of a chat begins with the role, and the client has got it already.
        self._opens = bool(stream.chunks) and stream.endpoint == "chat"
        self._replayed: list[bytes] = []

    def take(self, frame: Frame) -> bytes | None:
        """What the client gets of a frame, `None` where it has it already.

        Raises:
            ApiError: What follows would not fit to what the client has.
        """
        data, ids, flags = frame
        stream = self._stream
        if self._opens:
            self._opens = False
            return None
        if stream.reopened and not flags & (Flag.USAGE | Flag.DONE):
            data = without_opening(data)
        if flags & Flag.REPLAYED:
            self._replayed.append(data)
            return None
        if self._replayed:
            self._compare()
        chunk = with_created(data, self._created) if self._created else data
        if stream.in_prompt and flags & Flag.USAGE:
            chunk = with_generated(chunk, stream.in_prompt, self._counted)
        stream.begun = True
        if stream.single and not flags & Flag.DONE:
            stream.chunks.append(chunk)
            stream.ids += ids
        return chunk

    def _compare(self) -> None:
        """Hold what this replica's parser makes of the beginning against what the client has."""
        stream = self._stream
        replayed, self._replayed = Said.of(self._replayed, stream.endpoint), []
        if replayed != Said.of(stream.chunks[stream.own_from :], stream.endpoint):
            message = "another replica of the model reads the beginning of its answer otherwise"
            raise ApiError(503, message, code=ErrorCode.STREAM_BROKEN)
