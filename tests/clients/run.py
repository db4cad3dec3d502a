"""The clients that people use, each in an environment of its own, against a running router.

    python tests/clients/run.py [--url URL] [--only A,B] [--json]

Installs each client on first use (kept in the cache folder), has it ask `auto`, and prints what
worked. Each check is a script beside this one that takes the address, prints what came back, and
exits with 0 only if that was an answer.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from deployments.demo_models.catalog import cache_folder

HERE = Path(__file__).parent
TIMEOUT_S = 600.0
# npm and uv are asked for these very versions.
NODE_OPENAI = "openai@7.57.0"


@dataclass(frozen=True, slots=True)
class Client:
    """A client, and the script that uses it.

    Attributes:
        requirements: pip's, none for what is no Python package.
    """

    name: str
    what: str
    script: str
    requirements: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one client."""

    client: str
    what: str
    version: str
    worked: bool
    seconds: float
    printed: str


CLIENTS = (
    Client("curl", "answer, stream", "with_curl.sh"),
    Client(
        "openai (Python)",
        "answers, stream, weights, completions",
        "with_openai.py",
        ("openai==2.49.0",),
    ),
    Client("openai (Node)", "answer, stream, weights", "with_openai.mjs"),
    Client("LiteLLM", "answer, stream", "with_litellm.py", ("litellm==1.110.2",)),
    Client(
        "LangChain's ChatOpenAI",
        "answer, stream, weights",
        "with_langchain.py",
        ("langchain-openai==1.7.4",),
    ),
    Client("llm", "answer, stream", "with_llm.sh", ("llm==0.36",)),
    Client(
        "lm-eval", "a local task by `local-chat-completions`", "with_lm_eval.sh",
        ("lm-eval[api]==0.4.13",),
    ),
    Client("guidellm", "load by two clients", "with_guidellm.sh", ("guidellm==0.8.1",)),
)  # fmt: skip


def main() -> int:
    """Run and print; 1 where a client did not work."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--only", help="names of clients, with commas between")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    wanted = set(args.only.split(",")) if args.only else {client.name for client in CLIENTS}
    if unknown := wanted - {client.name for client in CLIENTS}:
        parser.error(f"--only: unknown {', '.join(sorted(unknown))}")
    results = [_check(client, args.url) for client in CLIENTS if client.name in wanted]
    if args.json:
        print(json.dumps([asdict(result) for result in results], indent=2))
    else:
        Console().print(_table(results))
        for result in results:
            if not result.worked:
                print(f"\n{result.client}:\n{result.printed}")
    return 0 if all(result.worked for result in results) else 1


def _check(client: Client, url: str) -> Result:
    folder = cache_folder() / "clients" / client.script.removeprefix("with_").replace(".", "-")
    began = time.monotonic()
    try:
        version = _install(client, folder)
        interpreter = {
            ".py": str(folder / "bin" / "python"), ".mjs": "node", ".sh": "bash"
        }[Path(client.script).suffix]  # fmt: skip
        script = HERE / client.script
        if script.suffix == ".mjs":
            # Node looks for packages from where the script lies.
            script = Path(shutil.copy(script, folder))
        began = time.monotonic()
        done = subprocess.run(
            [interpreter, str(script), f"{url}/v1"],
            check=False,
            env={
                **os.environ,
                "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
                "OPENAI_API_KEY": os.environ.get("OPENAI_API_KEY", "none"),
                "OPENAI_BASE_URL": f"{url}/v1",
                "WORK": str(folder),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIMEOUT_S,
        )
        worked, printed = done.returncode == 0, done.stdout
    except subprocess.CalledProcessError as error:
        version, worked, printed = "", False, str(error.stdout)
    except (OSError, subprocess.TimeoutExpired) as error:
        version, worked, printed = "", False, str(error)
    seconds = time.monotonic() - began
    return Result(client.name, client.what, version, worked, round(seconds, 1), printed.strip())


def _install(client: Client, folder: Path) -> str:
    """Into a folder of its own, once; what is installed there, in words."""
    folder.mkdir(parents=True, exist_ok=True)
    if client.script.endswith(".mjs"):
        _run(["npm", "install", "--silent", "--no-fund", "--prefix", str(folder), NODE_OPENAI])
        return NODE_OPENAI.split("@")[1]
    if not client.requirements:
        return _run([client.name, "--version"]).split()[1]
    marker = folder / "installed.txt"
    if not marker.exists() or marker.read_text() != "\n".join(client.requirements):
        uv = str(Path(sys.executable).with_name("uv"))
        python = str(folder / "bin" / "python")
        _run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)])
        _run([uv, "pip", "install", "--quiet", "--python", python, *client.requirements])
        marker.write_text("\n".join(client.requirements))
    return client.requirements[0].split("==")[1]


def _run(command: list[str]) -> str:
    # Not the environment of this process: VIRTUAL_ENV names another one.
    environment = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    return subprocess.run(
        command,
        check=True,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT_S,
    ).stdout


def _table(results: list[Result]) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("client", "version", "what", "", "seconds"):
        table.add_column(heading)
    for result in results:
        word = "[green]works[/]" if result.worked else "[red]fails[/]"
        table.add_row(result.client, result.version, result.what, word, f"{result.seconds:.1f}")
    return table


if __name__ == "__main__":
    sys.exit(main())
