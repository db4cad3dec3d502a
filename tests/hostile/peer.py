"""`python -m hostile.peer`: the corpus, sent through Ray Serve LLM's own ingress.

The same as `python -m hostile --peer`; for the comparison in `docs/reliability.md`.
"""

from __future__ import annotations

import sys

from hostile.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["--peer", *sys.argv[1:]]))
