"""The front deployment of a model's application; no request passes through it.

With HAProxy on, Serve opens an HTTP port for the front deployment of every application and refuses
a request router of its own there. This one is the front, so that the model deployment has neither
the port nor the restriction.
"""

from __future__ import annotations

from typing import Any


class Gate:
    """Holds the model deployment in its application.

    Args:
        model: Handle of the model deployment; Serve deploys what is bound here.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
