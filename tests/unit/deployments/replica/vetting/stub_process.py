"""The process that constraints are tried in, with a compiler that does what a constraint says."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
import types
from typing import Any

from deployments.replica.vetting.process import main


class RejectedError(Exception):
    """As `compile_check` has it."""


class CompileCheck:
    """Stands in for vLLM's compilers."""

    def __init__(self, config: Any) -> None:
        pass

    def check(self, constraint: dict[str, Any]) -> dict[str, Any]:
        """Do what its `regex` says."""
        match constraint["regex"]:
            case "wrong":
                raise RejectedError("no expression")
            case "computes":
                while time.process_time() < 0.5:
                    pass
            case "endless":
                time.sleep(60)
            case "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            case "large":
                raise MemoryError
            case "panic":
                raise RuntimeError("panic")
        return constraint


if __name__ == "__main__":
    stub: Any = types.ModuleType("compile_check")
    stub.CompileCheck, stub.RejectedError = CompileCheck, RejectedError
    sys.modules["deployments.replica.vetting.compile_check"] = stub
    main(socket.socket(fileno=int(sys.argv[1])))
