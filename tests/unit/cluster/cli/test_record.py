from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cluster.__main__ import main
from cluster.store.archive.decisions import Record
from cluster.store.archive.entries import Entry, Retention

RECORDS: list[dict[str, Any]] = [
    {"decision_id": f"d{n}", "finished_at": float(n), "observation": {"runtime_s": 0.5}}
    for n in range(3)
]


@pytest.fixture
def record(tmp_path: Path) -> Any:
    record = Record(tmp_path)
    record.put([Entry.of(r) for r in RECORDS], Retention(2**30, None))
    yield record
    record.close()


def lines(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


def test_everything_is_exported_oldest_first(
    record: Record, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    record.close()
    assert main(["record", "export", "--data-dir", str(tmp_path)]) == 0
    assert lines(capfdbinary.readouterr().out.decode()) == RECORDS
    output = tmp_path / "decisions.jsonl"
    assert main(["record", "export", f"--data-dir={tmp_path}", f"--output={output}"]) == 0
    assert lines(output.read_text()) == RECORDS


def test_without_a_record_it_is_one_line_and_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out.jsonl"
    missing = ["record", "export", f"--data-dir={tmp_path / 'none'}", f"--output={output}"]
    assert main(missing) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "record.sqlite: unable to open" in error
    assert not output.exists()
