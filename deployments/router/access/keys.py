"""API keys: made here, kept as hashes, found again by what a client sends.

A key is 256 random bits, so its SHA-256 is as hard to turn back as the key is to guess; a slow
hash would add nothing but milliseconds to every request. Keys that people make up themselves are
not that random: take those that `python -m deployments.keys new` prints.
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
import secrets
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import yaml
from pydantic import Field, PositiveFloat, PositiveInt, TypeAdapter, ValidationError

from deployments.config.base import Strict, describe_errors

KEY_PREFIX = "dls-"
KEY_HEADERS = (b"x-api-key", b"api-key")
"""Other headers than `Authorization` that clients send a key in."""


class ApiKey(Strict):
    """One key, as the file has it. A budget that is not named is none."""

    name: str = Field(pattern=r"^[A-Za-z0-9._@-]{1,64}$", description="Whose it is.")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="Hash of the key.")
    admin: bool = Field(default=False, description="May read the decisions of everybody.")
    requests_per_minute: PositiveInt | None = None
    requests_per_hour: PositiveInt | None = None
    requests_per_day: PositiveInt | None = None
    tokens_per_minute: PositiveInt | None = None
    tokens_per_hour: PositiveInt | None = None
    tokens_per_day: PositiveInt | None = None
    joules_per_minute: PositiveFloat | None = None
    joules_per_hour: PositiveFloat | None = None
    joules_per_day: PositiveFloat | None = None


BUDGETS = tuple((name, *name.split("_per_")) for name in ApiKey.model_fields if "_per_" in name)
"""Field of a key, what it bounds, and the period."""


_FILE = TypeAdapter(tuple[ApiKey, ...])


class KeyFileError(ValueError):
    """The keys cannot be read; the message says where and why."""


def hash_of(key: str | bytes) -> str:
    """What is kept of a key."""
    return hashlib.sha256(key.encode() if isinstance(key, str) else key).hexdigest()


def read_keys(path: str | None, variable: str) -> tuple[ApiKey, ...]:
    """All keys that are accepted.

    Args:
        path: YAML file with a list of keys, `None` for none.
        variable: Keys themselves, separated by commas. They may do everything, without limits.

    Raises:
        KeyFileError: The file is missing or wrong, or a key is there twice.
    """
    given = [text for key in variable.split(",") if (text := key.strip())]
    keys = [
        ApiKey(name=f"environment-{number}", sha256=hash_of(key), admin=True)
        for number, key in enumerate(dict.fromkeys(given), start=1)
    ]
    if path is not None:
        keys += _read_file(Path(path))
    for what in ("name", "sha256"):
        for value, count in Counter(getattr(key, what) for key in keys).items():
            if count > 1:
                raise KeyFileError(f"{path}: two keys have the {what} {value!r}")
    return tuple(keys)


def _read_file(path: Path) -> tuple[ApiKey, ...]:
    try:
        return _FILE.validate_python(yaml.safe_load(path.read_text(encoding="utf-8")) or ())
    except ValidationError as error:
        raise KeyFileError(f"{path}: {describe_errors(error)}") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise KeyFileError(f"{path}: {error}") from error


class KeyRing:
    """The accepted keys."""

    def __init__(self, keys: Sequence[ApiKey]) -> None:
        self._keys = [(key.sha256.encode(), key) for key in keys]

    def __bool__(self) -> bool:
        return bool(self._keys)

    @property
    def names(self) -> list[str]:
        """Whose they are."""
        return [key.name for _, key in self._keys]

    def find(self, headers: Iterable[tuple[bytes, bytes]]) -> ApiKey | None:
        """The key that a request comes with, `None` where it is none of ours.

        Args:
            headers: Names in lower case. `Authorization` with the scheme `Bearer` goes before
                `x-api-key`, as Anthropic's clients send it, and that before Azure's `api-key`.
        """
        given = [b"", b"", b""]
        for name, value in headers:
            if name == b"authorization":
                scheme, _, key = value.partition(b" ")
                if scheme.lower() == b"bearer":
                    given[0] = key.strip()
            elif name in KEY_HEADERS:
                given[1 + KEY_HEADERS.index(name)] = value.strip()
        found = (self._match(key) for key in given if key)
        return next((key for key in found if key is not None), None)

    def _match(self, given: bytes) -> ApiKey | None:
        digest = hash_of(given).encode()
        # Every key is compared, so that the time tells nothing about which one matched.
        matches = [key for sha256, key in self._keys if hmac.compare_digest(digest, sha256)]
        return matches[0] if matches else None


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m deployments.keys`: make a key."""
    parser = argparse.ArgumentParser(prog="python -m deployments.keys", description=main.__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    new = commands.add_parser("new", help="print a new key, and its line for the file of keys")
    new.add_argument("--name", required=True, help="whose it is")
    new.add_argument("--admin", action="store_true", help="may read everybody's decisions")
    for name, what, _ in BUDGETS:
        kind, letter = (float, "J") if what == "joules" else (int, "N")
        new.add_argument(f"--{name}", f"--{name.replace('_', '-')}", type=kind, metavar=letter)
    options = {k: v for k, v in vars(parser.parse_args(arguments)).items() if v is not None}
    secret = KEY_PREFIX + secrets.token_urlsafe(32)
    try:
        key = ApiKey(sha256=hash_of(secret), **options)
    except ValidationError as error:
        parser.error(describe_errors(error))
    line = yaml.safe_dump(
        [key.model_dump(exclude_defaults=True)],
        default_flow_style=None,
        sort_keys=False,
        width=1000,
    )
    print(
        f"The key, shown only now:\n\n{secret}\n\nIts line for the file of keys:\n\n{line}", end=""
    )
    return 0
