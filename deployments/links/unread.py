"""What came of a call over a link: unread yet, or after it was cancelled."""

from __future__ import annotations

import asyncio

from deployments.links.protocol import Piece, ReplicaMessage

MAX_UNREAD_BYTES = 2**20
"""Of one stream; a client that reads as fast as models generate has next to nothing unread."""


class SlowReaderError(Exception):
    """A call was cancelled because too much of its answer waited to be read."""


class Late:
    """What a cancelled call took, which the replica says after the call.

    Attributes:
        observation: As JSON, empty where the replica does not know; `None` for a call that was not
            cancelled.
    """

    def __init__(self) -> None:
        self.observation: asyncio.Future[bytes] | None = None

    def say(self, observation: bytes) -> None:
        """It is known, or will not be."""
        if self.observation is not None and not self.observation.done():
            self.observation.set_result(observation)


class Unread:
    """What came of one call and is not read yet.

    Backpressure is no way out: all calls of a replica share its connection, and the engine computes
    on in any case.

    Args:
        late: Of the call.
    """

    def __init__(self, late: Late | None = None) -> None:
        self.late = late or Late()
        self._messages: asyncio.Queue[ReplicaMessage | None] = asyncio.Queue()
        self._bytes = 0

    def add(self, message: ReplicaMessage) -> bool:
        """Take a message in; where there is too much already, drop everything instead.

        Returns:
            Whether it was taken in.
        """
        if isinstance(message, Piece):
            if self._bytes and self._bytes + len(message.data) > MAX_UNREAD_BYTES:
                while not self._messages.empty():
                    self._messages.get_nowait()
                self._messages.put_nowait(None)
                return False
            self._bytes += len(message.data)
        self._messages.put_nowait(message)
        return True

    async def get(self) -> ReplicaMessage:
        """The next one.

        Raises:
            SlowReaderError: There was too much.
        """
        message = await self._messages.get()
        if message is None:
            raise SlowReaderError(f"over {MAX_UNREAD_BYTES} bytes of the answer were not read")
        if isinstance(message, Piece):
            self._bytes -= len(message.data)
        return message
