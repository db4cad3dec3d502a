"""Other routers, to compare with: each in an environment of its own, which is made on first use.

`requirements/NAME.txt` pins what goes into it. LiteLLM and vllm-router stand in front of a server
that runs already; Ray Serve LLM's own ingress brings up its own Ray and its own engine, from the
environment of this project.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml
from servers import AS_IT_SHIPS, Server, free_port, running

from deployments.demo_models.catalog import cache_folder

REQUIREMENTS = Path(__file__).parent / "requirements"
SCRIPTS = Path(sys.executable).parent
INSTALL_TIMEOUT_S = 600.0


class PeerError(Exception):
    """A peer cannot be installed; the message says why."""


@contextmanager
def vllm_router(backend: Server, model: str, folder: Path) -> Iterator[Server]:
    """The router of the vLLM project, in Rust, starting.

    Args:
        backend: The server that it is to stand in front of.
        model: Not used: it asks the backend.
        folder: For the log.

    Raises:
        PeerError: It cannot be installed.
    """
    port = free_port()
    command = [str(peer_environment("vllm-router") / "bin" / "vllm-router")]
    command += ["--host", "127.0.0.1", "--port", str(port), "--worker-urls", backend.url]
    command += ["--prometheus-port", str(free_port())]
    log = folder / "vllm-router.log"
    with running(command, log, {}) as process:
        yield Server("vllm-router", f"http://127.0.0.1:{port}", process, log)


@contextmanager
def litellm_proxy(backend: Server, model: str, folder: Path) -> Iterator[Server]:
    """LiteLLM's proxy, starting.

    Args:
        backend: The server that it is to stand in front of.
        model: Id in the API.
        folder: For its config and the log.

    Raises:
        PeerError: It cannot be installed.
    """
    port = free_port()
    to = {"model": f"hosted_vllm/{model}", "api_base": f"{backend.url}/v1", "api_key": "none"}
    config = folder / "litellm.yaml"
    settings = {
        "model_list": [{"model_name": model, "litellm_params": to}],
        # Keys are not checked here; it listens on the loopback address only.
        "general_settings": {"dangerously_permit_weak_or_unset_master_key": True},
    }
    config.write_text(yaml.safe_dump(settings))
    command = [str(peer_environment("litellm") / "bin" / "litellm"), "--config", str(config)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--telemetry", "False"]
    log = folder / "litellm.log"
    # It would look for a list of prices on the web before it starts, and log every request.
    environment = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"}
    with running(command, log, environment) as process:
        url = f"http://127.0.0.1:{port}"
        yield Server("LiteLLM's proxy", url, process, log, health="/health/liveliness")


@contextmanager
def ray_ingress(model: str, checkpoint: Path, folder: Path, replicas: int = 1) -> Iterator[Server]:
    """Ray Serve LLM's own `OpenAiIngress` with a Ray and an engine of its own, starting.

    Args:
        model: Id in the API.
        checkpoint: Folder of the model.
        folder: For the log and everything that Ray writes.
        replicas: Of the model.
    """
    port = free_port()
    script = Path(__file__).with_name("ray_ingress.py")
    command = [sys.executable, str(script), model, str(checkpoint), str(port), str(folder / "peer")]
    command += [str(replicas)]
    log = folder / "ray-ingress.log"
    with running(command, log, AS_IT_SHIPS) as process:
        url = f"http://127.0.0.1:{port}"
        yield Server("Ray's ingress", url, process, log, health="/v1/models")


def peer_environment(name: str) -> Path:
    """The folder of a peer's virtual environment, with everything in it.

    Raises:
        PeerError: pip's registry, or a package, cannot be had.
    """
    requirements = REQUIREMENTS / f"{name}.txt"
    folder = cache_folder() / "benchmarks" / "environments" / name
    installed = folder / "installed.txt"
    wanted = f"{sys.version}\n{requirements.read_text()}"
    if installed.exists() and installed.read_text() == wanted:
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    python = folder / "bin" / "python"
    uv = SCRIPTS / "uv"
    # Not the environment of this process: VIRTUAL_ENV names another one.
    environment = {**os.environ, "VIRTUAL_ENV": str(folder)}
    commands: list[list[str | Path]] = [
        [uv, "venv", "--quiet", "--python", sys.executable, folder],
        [uv, "pip", "install", "--quiet", "--python", python, "-r", requirements],
    ]
    for command in commands:
        try:
            subprocess.run(
                command,
                check=True,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=INSTALL_TIMEOUT_S,
            )
        except subprocess.CalledProcessError as error:
            raise PeerError(f"{name}: {error.stdout.strip()}") from error
        except (OSError, subprocess.TimeoutExpired) as error:
            raise PeerError(f"{name}: {error}") from error
    installed.write_text(wanted)
    return folder
