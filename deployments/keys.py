"""`python -m deployments.keys`: API keys and their hashes."""

import sys

from deployments.router.access.keys import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
