from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROCESS = """
import logging, sys
from logging.handlers import MemoryHandler, RotatingFileHandler
from deployments.replica.startup.log_files import log_files_kept
logger = logging.getLogger("of the replica")
buffer = MemoryHandler(1000, target=RotatingFileHandler(sys.argv[1]))
logger.addHandler(buffer)
logger.warning("before")
with log_files_kept(logger):
    import vllm.logger
    assert buffer.target is None, "vLLM does not close it any more"
assert buffer.target.baseFilename == sys.argv[1]
logger.warning("after")
"""


def test_lines_are_written_after_vllm_has_configured_logging(tmp_path: Path) -> None:
    path = tmp_path / "replica.log"
    subprocess.run([sys.executable, "-c", PROCESS, str(path)], check=True, timeout=120)
    assert path.read_text().split() == ["before", "after"]
