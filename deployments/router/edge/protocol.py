"""uvicorn's HTTP protocol, with an error object for what is no HTTP."""

from __future__ import annotations

from uvicorn.protocols.http.auto import AutoHTTPProtocol

from deployments.router.wire.error_codes import ErrorCode, error_body


class EdgeProtocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """One connection."""

    def send_400_response(self, msg: str) -> None:
        """Called by uvicorn for a request that its parser rejects; closes the connection."""
        body = error_body(400, msg, code=ErrorCode.MALFORMED_REQUEST)
        head = (
            b"HTTP/1.1 400 Bad Request\r\n"
            b"content-type: application/json\r\n"
            b"content-length: %d\r\n"
            b"connection: close\r\n\r\n" % len(body)
        )
        self.transport.write(head + body)
        self.transport.close()
