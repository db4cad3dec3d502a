"""What runs in vLLM's own processes: the engine core and the workers, not the replica.

Private names of vLLM again, held by tests/integration/test_engine_contract.py. Kept apart from
`deployments.replica.engine.engine`, which would have every worker import Ray Serve.
"""

from __future__ import annotations

import copy
import ctypes
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from vllm.v1.structured_output.backend_types import StructuredOutputGrammar

from deployments.replica.vetting.step_costs import MeteredGrammar

RESUMED = "resumed_tokens"
"""Sampling argument: so many tokens at the end of the prompt are the beginning of the answer."""
COSTLY = "costly_constraint"
"""Sampling argument: others are not to wait until the constraint is compiled."""
COSTLY_THREADS = 2
TOO_COSTLY = "constraint too costly: "
"""Begins the `stop_reason` of a sequence that ends in an error because of its constraint."""
STEP_S, NAP_S = 0.1, 0.0002
ACTIVE_S, DOZE_MS = 1.0, 1
IDLE_MS = 20


class WorkerCalls:
    """vLLM worker extension: what a replica asks its workers."""

    def device_uuids(self) -> list[str]:
        """UUIDs of the GPUs that this worker computes on, as NVML writes them."""
        if not torch.cuda.is_available():
            return []
        uuid = torch.cuda.get_device_properties(torch.cuda.current_device()).uuid
        return [f"GPU-{uuid}"]

    def return_memory(self) -> None:
        """Give pages between freed allocations back to the system, which glibc keeps.

        On a CPU tensors of all sizes come from the heap and leave holes [measured: of 537 MB after
        a profile 197 MB were free]. Where the C library has no such call nothing happens.
        """
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def wait_without_spinning() -> None:
    """A plugin of vLLM (`vllm.general_plugins`): on CPU, wait without burning a core.

    Matters to engines with several workers, see `computing_in_engine_core` for the others. Between
    the steps of a generation, and for a second after it, the engine core and its workers poll their
    shared memory with `sched_yield` (vLLM pull request 52814 has figures). On a CPU these are the
    cores that compute: other engines starve, and CPU time says nothing about work. Here they look
    every NAP_S during a generation. Later they sleep on vLLM's notification, for some milliseconds
    at a time, because it gets lost now and then [measured: every fourth request of a tiny model
    hung for 5 s].

    On a GPU nothing is changed: the host's cores are idle there, and spinning saves microseconds.

    Everywhere, the engine core treats constraints as `guard_constraints` says.
    """
    guard_constraints()
    from vllm.distributed.device_communicators.shm_broadcast import SpinCondition  # noqa: PLC0415
    from vllm.platforms import current_platform  # noqa: PLC0415

    if not current_platform.is_cpu():
        return
    sleep = SpinCondition.wait

    def wait(self: SpinCondition, timeout_ms: int | None = None) -> None:
        quiet_s = time.monotonic() - self.last_read
        if quiet_s < STEP_S:
            time.sleep(NAP_S)
        else:
            sleep_ms = DOZE_MS if quiet_s < ACTIVE_S else IDLE_MS
            sleep(self, sleep_ms if timeout_ms is None else min(sleep_ms, timeout_ms))

    SpinCondition.__init__.__defaults__ = (0,)  # no spinning before the sleep
    SpinCondition.wait = wait


def guard_constraints() -> None:
    """Have the engine core treat each request's constraint by itself.

    It is compiled with the backend that it was validated for. vLLM validates each request for one
    of several backends, and compiles all with that of the first one [vLLM 0.29]: a client whose
    first schema only guidance can follow would have the grammars of everybody else fail.

    What is known to take long is compiled by threads of its own: vLLM has one for two cores, and
    everybody's constraints would wait for it.

    A request ends when its constraint costs too much to follow, see `MeteredGrammar`.
    """
    from vllm.v1.structured_output import StructuredOutputManager  # noqa: PLC0415

    if hasattr(StructuredOutputManager, "backends"):
        return
    init, create = StructuredOutputManager.grammar_init, StructuredOutputManager._create_grammar

    def name_of(request: Any) -> str:
        return str(request.sampling_params.structured_outputs._backend)

    def grammar_init(self: Any, request: Any) -> None:
        if request.structured_output_request is None:
            init(self, request)
            return
        if "backends" not in self.__dict__:
            self.backends = {}
            threads = ThreadPoolExecutor(COSTLY_THREADS)
            self.executors = {False: self.executor, True: threads}
        name, extra_args = name_of(request), request.sampling_params.extra_args or {}
        # The steps of other requests go on with what `self` has.
        chosen = copy.copy(self)
        chosen.executor = self.executors[bool(extra_args.get(COSTLY))]
        # `None` has vLLM make it.
        chosen.backend = self.backends.get(name)
        init(chosen, request)
        self.backend = self.backends[name] = chosen.backend

    def create_grammar(self: Any, request: Any) -> Any:
        grammar = metered(create(self, request), request)
        resumed = (request.sampling_params.extra_args or {}).get(RESUMED)
        if resumed:
            ids = list(request.prompt_token_ids[-resumed:])
            if not grammar.accept_tokens(request.request_id, ids):
                unfit = "the beginning of the answer does not follow its grammar"
                raise ValueError(grammar.excess or unfit)
        return grammar

    def metered(grammar: StructuredOutputGrammar, request: Any) -> MeteredGrammar:
        asking = weakref.ref(request)

        def say(reason: str) -> None:
            if (found := asking()) is not None:
                found.stop_reason = TOO_COSTLY + reason

        return MeteredGrammar(grammar, say)

    StructuredOutputManager.backends = {}
    StructuredOutputManager.grammar_init = grammar_init
    StructuredOutputManager._create_grammar = create_grammar
