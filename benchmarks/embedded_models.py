"""The embedded models, up and profiled, for benchmarks on real text models."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml
from loadgen import LoadError
from rich.console import Console
from servers import ROOT, WITHOUT_TOKEN, Server, free_port, instance


@dataclass(frozen=True, slots=True)
class EmbeddedModels:
    """A running instance of `serve_config.cpu.yaml`.

    Attributes:
        models: Their ids.
        data_dir: Where it keeps profiles and trials.
        ray_port: For commands that talk to its Ray.
    """

    server: Server
    models: tuple[str, ...]
    data_dir: Path
    ray_port: int

    def profile(self, budget_s: float, seed: int, *, quick: bool = False) -> None:
        """Measure all models, with what it says on stderr; takes about as long as the budget.

        Args:
            budget_s: Seconds of trials.
            seed: Of the grid and the prompts.
            quick: A small grid, extremes first.

        Raises:
            LoadError: It failed.
        """
        command = [sys.executable, "-m", "profiling", "run", "--brief"]
        command += ["--budget", str(budget_s), "--seed", str(seed), *["--quick"] * quick]
        address = {"RAY_ADDRESS": f"127.0.0.1:{self.ray_port}"}
        environment = {**os.environ, **WITHOUT_TOKEN, **address}
        done = subprocess.run(command, cwd=ROOT, env=environment, check=False, stdout=sys.stderr)
        if done.returncode:
            raise LoadError(f"profiling ended with status {done.returncode}")


@contextmanager
def embedded_models(console: Console) -> Iterator[EmbeddedModels]:
    """Bring them up and, with the block, down.

    Args:
        console: Shows that they are starting.

    Raises:
        ServerError: They did not come up.
    """
    config = yaml.safe_load((ROOT / "serve_config.cpu.yaml").read_text())
    router = config["applications"][0]
    models = tuple(m["id"] for m in router["deployments"][0]["user_config"]["models"])
    ray_port = free_port()
    # Ray's sockets need a short path, whatever TMPDIR says.
    with tempfile.TemporaryDirectory(
        prefix="bench-", dir="/tmp", ignore_cleanup_errors=True
    ) as name:
        folder = Path(name)
        router["args"]["data_dir"] = str(folder / "data")
        with instance(config, folder, ray_port) as server:
            with console.status("starting the embedded models"):
                server.wait_until_ready()
            yield EmbeddedModels(server, models, folder / "data", ray_port)
