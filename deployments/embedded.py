"""`python -m deployments.embedded`: builds the embedded models ahead of time."""

import sys

from deployments.demo_models.catalog import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
