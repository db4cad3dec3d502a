"""Processes of a replica that share their imports: forked from one that has loaded vLLM.

vLLM starts its engine core as a new interpreter, which imports all that the replica has imported
already, and so does the process that tries constraints: eight to ten seconds of a core and half a
gigabyte each. Here a process that does nothing but import (Python's fork server, started as soon as
the replica's turn comes, so that it imports while the replica does) is forked for both. It has one
thread, no connection to Ray and no device.

Only on CPUs: CUDA's libraries keep state that no fork survives, and a node with GPUs has cores
enough. Not where `VLLM_CPU_OMP_THREADS_BIND` binds threads either: OpenMP reads that once, when it
is loaded.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Mapping
from multiprocessing.context import ForkServerContext
from multiprocessing.forkserver import ensure_running
from multiprocessing.process import BaseProcess
from typing import Any

PRELOADED = "deployments.replica.startup.preloaded"
OMP_BINDING = "VLLM_CPU_OMP_THREADS_BIND"
PR_SET_PDEATHSIG = 1


def shares_imports(settings: Mapping[str, Any]) -> bool:
    """Whether the processes of a model are forked.

    Args:
        settings: Ray's configuration of the model: the arguments of its `LLMConfig`.
    """
    on_cpu = settings.get("accelerator_config", {}).get("kind") == "cpu"
    return on_cpu and OMP_BINDING not in os.environ


def start_template_process(settings: Mapping[str, Any]) -> None:
    """Start the process that imports, where the model's processes will be forked from it.

    Call it from a thread that lives as long as the process: the end of that thread ends the
    template.
    """
    if not shares_imports(settings):
        return
    multiprocessing.get_context("forkserver").set_forkserver_preload([PRELOADED])
    path = os.environ.get("PYTHONPATH")
    # It begins as a new interpreter, which knows nothing of folders that Ray has added.
    os.environ["PYTHONPATH"] = os.pathsep.join(folder for folder in sys.path if folder)
    try:
        ensure_running()
    finally:
        if path is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = path
    _Started.template = True


class _Started:
    """What this process has started."""

    template = False


def forks() -> bool:
    """Whether this replica has a template process."""
    return _Started.template


class SharedImports(ForkServerContext):
    """In the place of vLLM's multiprocessing context: processes that begin as a fork."""

    # Its signature is the one that vLLM calls.
    def Process(  # type: ignore[override]  # noqa: N802
        self,
        *,
        target: Callable[..., object],
        name: str | None = None,
        kwargs: Mapping[str, Any] | None = None,
    ) -> BaseProcess:
        """A process with the environment of this moment, which a fork server would not have."""
        return forked(target, os.environ, name=name, kwargs=kwargs)


def forked(
    target: Callable[..., object],
    environment: Mapping[str, str],
    *args: Any,
    name: str | None = None,
    kwargs: Mapping[str, Any] | None = None,
) -> BaseProcess:
    """A process that begins as a fork of the template; to be started.

    Args:
        target: Called in it.
        environment: Its variables.
        args: For the target.
        name: Of the process.
        kwargs: For the target.
    """
    begin = (target, dict(environment), args, dict(kwargs or {}))
    context = multiprocessing.get_context("forkserver")
    return context.Process(target=_begin, name=name, args=begin)


def _begin(
    target: Callable[..., object],
    environment: dict[str, str],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> None:
    """The first thing in a forked process."""
    end_with_parent()
    os.environ.clear()
    os.environ.update(environment)
    threads = environment.get("OMP_NUM_THREADS", "")
    if threads.isdecimal():
        import torch  # noqa: PLC0415 - it is loaded

        # OpenMP has read its variable when the template was started.
        torch.set_num_threads(int(threads))
    target(*args, **kwargs)


def end_with_parent() -> None:
    """Have the kernel end this process when the thread that started it ends."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
