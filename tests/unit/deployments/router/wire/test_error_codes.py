"""One vocabulary: the enum, the reference and the source have the same codes."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest

from deployments.router.wire.api_error import ApiError
from deployments.router.wire.error_codes import (
    DEFAULT_CODES,
    MAX_MESSAGE,
    MEANINGS,
    ErrorCode,
    default_code,
    error_body,
)

ROOT = Path(__file__).parents[5]
ROW = re.compile(r"^\| (\d{3}) \| `([a-z_]+)` \|", re.MULTILINE)


def test_every_code_has_a_meaning() -> None:
    assert set(MEANINGS) == set(ErrorCode)
    assert all(400 <= meaning.status < 600 for meaning in MEANINGS.values())


def test_the_reference_has_the_same_table() -> None:
    text = (ROOT / "docs/reference/http.md").read_text()
    section = text[text.index("\n## Errors\n") :]
    listed = [(int(status), code) for status, code in ROW.findall(section)]
    assert sorted(listed) == sorted((m.status, str(code)) for code, m in MEANINGS.items())


def literal_codes() -> list[tuple[str, str]]:
    """Every literal `code=` of a call in the service's source."""
    found = []
    for path in (ROOT / "deployments").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.keyword) and node.arg == "code":
                value = node.value
                if isinstance(value, ast.Constant) and isinstance(value.value, str):
                    found.append((str(path.relative_to(ROOT)), value.value))
    return found


def test_the_source_uses_no_other_codes() -> None:
    unknown = [(path, code) for path, code in literal_codes() if code not in set(ErrorCode)]
    assert not unknown


@pytest.mark.parametrize("status", range(400, 600))
def test_an_error_without_a_code_gets_one_of_its_kind(status: int) -> None:
    error = json.loads(ApiError(status, "x").body())["error"]
    code = ErrorCode(error["code"])
    assert code is default_code(status)
    # A server's fault never looks like a client's, nor the other way round.
    assert (MEANINGS[code].status < 500) is (status < 500)
    assert error["type"] == ("invalid_request_error" if status < 500 else "server_error")
    assert set(DEFAULT_CODES.values()) <= set(ErrorCode)


def test_a_message_is_cut_and_is_text() -> None:
    error = json.loads(error_body(400, "\udcff" + "x" * 10_000))["error"]
    assert error["message"].startswith("?x")
    assert len(error["message"]) == MAX_MESSAGE
