"""What the scripts of the clients share: each runs in its client's own environment.

A script gets the service's address and a model's name, asserts what must hold, and prints what it
did as one line of JSON. Nothing of the project is imported.
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from typing import Any

URL = sys.argv[1]
MODEL = sys.argv[2]
KEY = "none"

CITIES = ["Oslo", "Rome"]
CITY = {"type": "string", "enum": CITIES}
PARAMETERS = {"type": "object", "properties": {"city": CITY}, "required": ["city"]}
QUESTION = "What is the weather in Oslo?"


def report(package: str, **did: Any) -> None:
    """Print what was done."""
    print(json.dumps({"version": version(package), "did": did}))
