"""What a router and a replica say to each other over a link, and how it becomes bytes.

A link is one TCP connection that carries many calls side by side: MessagePack behind its length.
Nothing here knows what a call is for; `server` and `client` are its two ends.
"""

from __future__ import annotations

from cluster.connection import Message
from deployments.links.frames import ModelRequest

VERSION = 1
"""Of the messages. A field with a default at the end of a message needs no new one, because each
end ignores what it does not know and takes the default of what is missing; any other change does,
a further message included."""


class Hello(Message, tag=0):
    """The router's first message; without the replica's own key the replica hangs up.

    Attributes:
        version: `VERSION` of the router; the first routers did not say it.
    """

    key: str
    version: int = 1


class Call(Message, tag=1):
    """A request for the replica's `stream` or `answer`, see `model_server`.

    Attributes:
        id: The router's number of it, on this link.
    """

    id: int
    streamed: bool
    request: ModelRequest


class Cancel(Message, tag=2):
    """The caller waits for this call no longer."""

    id: int


class Piece(Message, tag=3):
    """One frame of a stream."""

    id: int
    data: bytes
    token_ids: tuple[int, ...]
    flags: int


class End(Message, tag=4):
    """The stream is over, in order."""

    id: int


class Answer(Message, tag=5):
    """A whole answer, see `frames.Reply`."""

    id: int
    status: int
    data: bytes
    observation: bytes


class Failure(Message, tag=6):
    """The call broke in the replica.

    Attributes:
        refused: The replica is going away and has not begun with it.
    """

    id: int
    reason: str
    refused: bool = False


class Draining(Message, tag=7):
    """The replica is going away: it finishes what it has and takes nothing new."""


class Stopped(Message, tag=8):
    """The answer to a `Cancel` of a call that had not ended.

    Attributes:
        observation: What it took until then, as JSON; empty where that is not known.
    """

    id: int
    observation: bytes


class OtherVersion(Message, tag=9):
    """The answer to the `Hello` of another version, whose router is to hang up.

    Attributes:
        version: `VERSION` of the replica.
    """

    version: int


RouterMessage = Hello | Call | Cancel
ReplicaMessage = Piece | End | Answer | Failure | Draining | Stopped | OtherVersion
