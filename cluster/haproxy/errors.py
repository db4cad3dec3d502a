"""HAProxy's own errors as OpenAI error objects: lines of its configuration, and their files.

Ray writes the configuration, with pages in HTML and plain text for what HAProxy answers itself: a
router that is not there, or that dies under a request. Nothing else of it is changed. What its
parser rejects before it is a request (400, and 408 for one that does not arrive) HAProxy 2.8
answers with pages that are built in, whatever is configured.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import NamedTuple


class Answer(NamedTuple):
    """What stands in the place of one of HAProxy's errors.

    The codes are those of `deployments.router.wire.error_codes`.
    """

    status: int
    phrase: str
    code: str
    message: str
    retry_after_s: int | None = None

    def body(self) -> str:
        """The error object as JSON."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        error = {"message": self.message, "type": kind, "param": None, "code": self.code}
        return json.dumps({"error": error})

    def page(self) -> bytes:
        """The whole answer, as an `errorfile` has it."""
        body = self.body().encode()
        lines = [
            f"HTTP/1.1 {self.status} {self.phrase}",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
            "Cache-Control: no-cache",
            "Connection: close",
        ]
        if self.retry_after_s is not None:
            lines.append(f"Retry-After: {self.retry_after_s}")
        return "\r\n".join([*lines, "", ""]).encode() + body


_MALFORMED = "the request is no valid HTTP, or its headers are too large"
_NO_ROUTER = "no router takes the request now"
ANSWERS = {
    400: Answer(400, "Bad Request", "malformed_request", _MALFORMED),
    408: Answer(408, "Request Timeout", "body_timeout", "the request did not arrive in time"),
    413: Answer(413, "Content Too Large", "body_too_large", "the body is too large"),
    500: Answer(500, "Internal Server Error", "internal_error", "internal error"),
    # A router that died under a request, and none that is there.
    502: Answer(503, "Service Unavailable", "unavailable", _NO_ROUTER, 1),
    503: Answer(503, "Service Unavailable", "unavailable", _NO_ROUTER, 1),
    504: Answer(504, "Gateway Timeout", "timeout", "the answer was not ready in time"),
}
"""By HAProxy's own status."""
NOT_FOUND = Answer(404, "Not Found", "not_found", "there is no such path")
_PLAIN_404 = re.compile(r"^( *)http-request return status 404 content-type text/plain .*$", re.M)
_SECTION = re.compile(r"^(?:frontend|backend|listen)\b", re.M)
_DEFAULTS = re.compile(r"^defaults\b", re.M)
_ERRORFILE = re.compile(r"^ *errorfile \d+ .*\n", re.M)


def haproxy_variables() -> dict[str, str]:
    """For Ray's start: what has HAProxy give these answers; empty where that cannot be started."""
    script = Path(__file__).with_name("haproxy")
    if not os.access(script, os.X_OK):
        return {}
    return {
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(script),
        "DYNAMIC_LLM_SCHEDULER_PYTHON": sys.executable,
    }


def with_errors(configuration: str, folder: Path) -> str:
    """A configuration of Ray's with these answers.

    Args:
        configuration: As Ray wrote it.
        folder: Of the files, which `write_pages` writes.

    Raises:
        ValueError: It has no section `defaults` before its frontends.
    """
    start = _DEFAULTS.search(configuration)
    end = start and _SECTION.search(configuration, start.end())
    if not start or not end:
        raise ValueError("the configuration has no section `defaults` before its frontends")
    defaults = _ERRORFILE.sub("", configuration[start.start() : end.start()])
    lines = "".join(f"    errorfile {status} {folder / f'{status}.http'}\n" for status in ANSWERS)
    rest = _PLAIN_404.sub(
        lambda found: (
            # HAProxy that has just started knows no route yet: not the client's fault.
            f"{found[1]}http-request return status 503 content-type application/json "
            f"hdr Retry-After 1 string '{ANSWERS[503].body()}' if {{ path_beg / }}\n"
            f"{found[1]}http-request return status 404 content-type application/json "
            f"string '{NOT_FOUND.body()}'"
        ),
        configuration[end.start() :],
    )
    return f"{configuration[: start.start()]}{defaults.rstrip()}\n{lines}{rest}"


def write_pages(folder: Path) -> None:
    """Write the files that `with_errors` names.

    Raises:
        OSError: They cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for status, answer in ANSWERS.items():
        (folder / f"{status}.http").write_bytes(answer.page())
