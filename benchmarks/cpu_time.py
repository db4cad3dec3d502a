"""CPU time of a server's processes, by what they do for a request."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

import psutil

ROUTER, MODEL, PROXY, ENGINE, OTHER = "router", "model", "proxy", "engine", "other"

# What processes call themselves; the first that is found in it says what one is.
_TITLES: Mapping[str, re.Pattern[str]] = {
    ENGINE: re.compile(r"VLLM::(EngineCore|Worker)"),
    MODEL: re.compile(r"ray::ServeReplica:.*:(ModelServer|LLMServer)|vllm\.entrypoints"),
    ROUTER: re.compile(r"ray::ServeReplica:.*:(Router|OpenAiIngress)|vllm::router|bin/litellm"),
    PROXY: re.compile(r"haproxy|ray::ProxyActor"),
}


def processes(root: int) -> dict[psutil.Process, str]:
    """A process and all its descendants, each with what it is.

    Raises:
        psutil.NoSuchProcess: The first one has ended.
    """
    parent = psutil.Process(root)
    found: dict[psutil.Process, str] = {}
    for process in (parent, *parent.children(recursive=True)):
        try:
            found[process] = kind(" ".join(process.cmdline()))
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return found


def kind(title: str) -> str:
    """What a process with this command line is."""
    return next((name for name, title_ in _TITLES.items() if title_.search(title)), OTHER)


def cpu_seconds(roots: tuple[int, ...]) -> Counter[str]:
    """CPU seconds so far, by what the processes are, of these and all their descendants.

    Raises:
        psutil.NoSuchProcess: One of the first ones has ended.
    """
    seconds: Counter[str] = Counter()
    for root in roots:
        for process, name in processes(root).items():
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            seconds[name] += times.user + times.system
    return seconds
