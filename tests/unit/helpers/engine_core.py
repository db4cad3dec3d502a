"""What tests of vLLM's engine core have in common."""

from __future__ import annotations

import time
from typing import Any

from vllm.v1.request import Request


def compiled(request: Request) -> Any:
    """A request's grammar, once the engine core's threads have compiled it; or what went wrong."""
    asked = request.structured_output_request
    assert asked is not None
    deadline = time.monotonic() + 30
    while asked.grammar is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return asked.grammar
