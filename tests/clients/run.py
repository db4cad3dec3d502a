"""Each client against the live service: `python tests/clients/run.py`.

Installs the clients into environments of their own under `.cache/clients`, brings the service up
on tiny models unless `--url` names one, and prints a row for each. Exit codes: 0 all of them
worked, 1 one did not, 2 the options are wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parents[1]))

from clients.catalog import CLIENTS, Client
from clients.environments import Environment
from clients.site import MODEL, running_site
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
TIMEOUT_S = 240


@dataclass(frozen=True, slots=True)
class Row:
    """What came of one client.

    Attributes:
        did: What its script says that it did, or the end of what it printed.
    """

    client: str
    version: str
    worked: bool
    seconds: float
    tried: str
    did: str


def main(argv: Sequence[str]) -> int:
    """Run the clients and return the exit code."""
    args = _parser().parse_args(argv)
    known = {client.name: client for client in CLIENTS}
    names = args.only.split(",") if args.only else list(known)
    if unknown := [name for name in names if name not in known]:
        _parser().error(f"--only: no client {unknown[0]!r}, known: {', '.join(known)}")
    clients = [known[name] for name in names]
    console = Console(stderr=args.json)
    # Some share an environment.
    environments = list(dict.fromkeys(client.installed() for client in clients))
    with ThreadPoolExecutor(2) as pool:
        found = dict(zip(environments, pool.map(_installed, environments), strict=True))
    faults = {client.name: found[client.installed()] for client in clients}
    if args.install:
        for name, fault in faults.items():
            console.print(f"{name}: {fault or 'installed'}")
        return int(any(faults.values()))
    with ExitStack() as stack:
        url = args.url
        if url is None:
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="clients-")))
            url = stack.enter_context(running_site(folder)).url
        rows = []
        for client in clients:
            rows.append(_row(client, faults[client.name], url, args.model))
            console.print(f"{rows[-1].client}: {'worked' if rows[-1].worked else rows[-1].did}")
    if args.json:
        print(json.dumps([asdict(row) for row in rows], indent=1))
    else:
        console.print(_table(rows))
    return int(not all(row.worked for row in rows))


def _installed(environment: Environment) -> str:
    try:
        environment.install()
    except subprocess.CalledProcessError as error:
        return f"not installed: {error.stdout[-500:]}"
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"not installed: {error}"
    return ""


def _row(client: Client, fault: str, url: str, model: str) -> Row:
    if fault:
        return Row(client.name, "", False, 0.0, client.tries, fault)
    began = time.monotonic()
    with TemporaryDirectory(prefix="client-") as folder:
        worked, output = _run(client, url, model, folder)
    seconds = round(time.monotonic() - began, 1)
    did = output.strip()[-3000:]
    if worked and client.script.startswith("scripts/"):
        did = json.dumps(json.loads(did.splitlines()[-1])["did"])
    return Row(client.name, _version(client), worked, seconds, client.tries, did)


def _run(client: Client, url: str, model: str, folder: str) -> tuple[bool, str]:
    where = client.installed()

    def filled(text: str) -> str:
        for name, value in (("url", url), ("model", model), ("folder", folder)):
            text = text.replace("{" + name + "}", value)
        return text

    inherited = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment = {
        **inherited,
        "PATH": os.pathsep.join((*where.commands, inherited["PATH"])),
        "OPENAI_API_KEY": inherited.get("OPENAI_API_KEY", "none"),
        "OPENAI_BASE_URL": f"{url}/v1",
        "WORK": folder,
        **{name: filled(value) for name, value in client.environment.items()},
    }
    command = _script(client, url, model) if client.script else [*map(filled, client.command)]
    try:
        done = subprocess.run(
            command,
            cwd=where.folder if client.node and client.script else folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        output = error.stdout or b""
        said = output.decode(errors="replace") if isinstance(output, bytes) else output
        return False, f"not within {TIMEOUT_S} s: {said}"
    return done.returncode == 0 and client.says in done.stdout, done.stdout


def _script(client: Client, url: str, model: str) -> list[str]:
    path = HERE / client.script
    # The older scripts ask `auto` only, and want the address with its version.
    arguments = [url, model] if path.parent.name == "scripts" else [f"{url}/v1"]
    if path.suffix == ".sh":
        return ["bash", str(path), *arguments]
    if client.node:
        # Node looks for packages from where the script lies.
        path = Path(shutil.copy(path, client.installed().folder))
    return [client.installed().program, str(path), *arguments]


def _version(client: Client) -> str:
    if not client.packages:
        said = subprocess.run(
            [client.name, "--version"], capture_output=True, text=True, check=True
        )
        return said.stdout.split()[1]
    return re.split("==|(?<=.)@", client.packages[0])[-1]


def _table(rows: Sequence[Row]) -> Table:
    table = Table("client", "version", "worked", "s", "tried", "did")
    for row in rows:
        worked = "yes" if row.worked else "no"
        table.add_row(row.client, row.version, worked, str(row.seconds), row.tried, row.did[-200:])
    return table


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python tests/clients/run.py", description=__doc__)
    parser.add_argument("--url", help="of a running service; default: one on tiny models")
    parser.add_argument("--model", default=MODEL, help="that can be made to call tools")
    parser.add_argument("--only", metavar="NAME,NAME", help="these clients; default: all")
    parser.add_argument("--install", action="store_true", help="install them, and no more")
    parser.add_argument("--json", action="store_true", help="the rows as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
