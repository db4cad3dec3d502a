"""The benchmarks are scripts: their folder is no package, and Python puts it first on the path."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))
