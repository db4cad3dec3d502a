"""What the template process of a replica imports, see `forking`; imported nowhere else."""

from __future__ import annotations

import gc
import importlib
import logging

from setproctitle import setproctitle

from deployments.replica.startup.forking import end_with_parent

MODULES = (
    "vllm.v1.engine.core",
    "vllm.v1.worker.cpu_worker",
    "vllm.v1.executor.uniproc_executor",
    "vllm.model_executor.models.llama",
    "deployments.replica.engine_worker",
    "deployments.replica.vetting.compile_check",
    "deployments.replica.vetting.process",
)
"""Of the engine core, of its worker, and of the trials of constraints."""

end_with_parent()
# Here, because a fork that has changed its environment could not give itself a title any more.
setproctitle("ModelReplica::template")
for _name in MODULES:
    try:
        importlib.import_module(_name)
    except Exception:
        # Whatever needs it imports it itself, and says what is wrong there.
        logging.getLogger(__name__).exception("cannot be loaded ahead: %s", _name)
# A collection would have every fork copy what it shares.
gc.collect()
gc.freeze()
