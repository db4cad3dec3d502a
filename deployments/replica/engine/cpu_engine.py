"""On CPUs: where vLLM's engine core computes, and on which cores. Private names of vLLM again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from vllm.platforms import current_platform
from vllm.utils.ompmultiprocessing import OMPProcessManager
from vllm.v1.engine import utils as engine_processes
from vllm.v1.executor.uniproc_executor import UniProcExecutor

from deployments.replica.startup.forking import SharedImports, forks

BINDING = ("KMP_AFFINITY", "GOMP_CPU_AFFINITY", "OMP_PLACES", "OMP_PROC_BIND")
"""Variables by which OpenMP's libraries bind threads."""


@contextmanager
def computing_in_engine_core(config: Any) -> Iterator[None]:
    """On a CPU, have the engine core that is started in the block compute by itself.

    vLLM gives each engine a worker process more there, because OpenMP's threads can only be set up
    before a process starts; the block's environment does it for the engine core. That saves a
    process and its imports for each model, and a hop through shared memory for each token.

    vLLM binds the threads of every engine to the same cores. Here they are free to move unless
    `VLLM_CPU_OMP_THREADS_BIND` says where they belong: engines that share a machine would starve
    one another while other cores are idle.

    Args:
        config: vLLM's configuration of an engine; changed where this applies: one worker, no GPU.
    """
    parallel = config.parallel_config
    if not current_platform.is_cpu() or parallel.world_size != 1:
        yield
        return
    parallel.distributed_executor_backend = UniProcExecutor
    with OMPProcessManager(config).configure_omp_envs(0, 0):
        if "VLLM_CPU_OMP_THREADS_BIND" not in os.environ:
            for name in BINDING:
                os.environ.pop(name, None)
        with _forked_engine_core():
            yield


@contextmanager
def _forked_engine_core() -> Iterator[None]:
    """In the block, an engine core begins as a fork of the template process, if there is one."""
    if not forks():
        yield
        return
    context = engine_processes.get_mp_context
    engine_processes.get_mp_context = SharedImports
    try:
        yield
    finally:
        engine_processes.get_mp_context = context
