"""uvicorn's server, which takes in a burst of connections at once."""

from __future__ import annotations

import socket

import uvicorn

LISTENERS = 32
"""Handles of one listening socket. libuv accepts one connection for each in a turn of the loop."""


class EdgeServer(uvicorn.Server):
    """Serve's server for a replica's or a proxy's HTTP.

    A turn of a busy loop takes tens of milliseconds, and with one accepted in each, the last of a
    thousand connections waits for ten seconds, whatever it asks for.
    """

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, with some handles for each socket."""
        listening = None
        if sockets is not None:
            listening = [one for given in sockets for one in _handles(given)]
        await super().startup(sockets=listening)


def _handles(listening: socket.socket) -> list[socket.socket]:
    return [listening, *(listening.dup() for _ in range(LISTENERS - 1))]
