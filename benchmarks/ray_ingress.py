"""Ray Serve LLM's own ingress in front of one model, until SIGTERM.

    python benchmarks/ray_ingress.py MODEL CHECKPOINT PORT FOLDER REPLICAS

With Ray's defaults: none of the flags that `python -m cluster up` sets. For `peers`.
"""

from __future__ import annotations

import os
import signal
import sys

from servers import ENGINE

OURS = ("RAY_SERVE_", "RAY_worker_niceness", "RAY_ADDRESS", "RAY_GRACEFUL_SHUTDOWN")
LOGICAL_CPUS = 16


def main(model: str, checkpoint: str, port: int, folder: str, replicas: int) -> None:
    for name in [name for name in os.environ if name.startswith(OURS)]:
        del os.environ[name]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    # Ray reads its environment when it is imported.
    import ray  # noqa: PLC0415
    from ray import serve  # noqa: PLC0415
    from ray.serve.llm import LLMConfig, build_openai_app  # noqa: PLC0415

    # Not the cores of this machine: what the ingress and the model reserve by default is more.
    ray.init(num_cpus=LOGICAL_CPUS, include_dashboard=False, _temp_dir=folder)
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    count = {"min_replicas": replicas, "max_replicas": replicas}
    config = LLMConfig(
        model_loading_config={"model_id": model, "model_source": checkpoint},
        accelerator_config={"kind": "cpu"},
        engine_kwargs=dict(ENGINE),
        deployment_config={"autoscaling_config": count},
    )
    serve.run(build_openai_app({"llm_configs": [config]}))
    signal.pause()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4], int(sys.argv[5]))
