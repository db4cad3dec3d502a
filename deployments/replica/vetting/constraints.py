"""Between a request with constraints and vLLM's engine: nothing is compiled that was not tried.

vLLM validates a constraint in the event loop of the replica, and compiles it in the engine. Here it
is tried first, see `vetting`; the engine gets it as that trial left it, and the event loop compiles
nothing. Private names of vLLM, held by tests/integration/test_engine_contract.py.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

import orjson
from vllm.entrypoints.generate.base import protocol
from vllm.sampling_params import SamplingParams

from deployments.config.replica import VettingLimits
from deployments.links.frames import QUEUE_FULL
from deployments.replica.engine_worker import COSTLY
from deployments.replica.vetting.vetting import (
    Vetting,
    VettingBusyError,
    VettingStarvedError,
    VettingUnavailableError,
)

REJECTED = "constraint_rejected"
"""Type of the error object, with status 400, of a constraint that the engine is not given."""
STARVED = "constraint_not_tried"
"""With status 429: the machine is too busy to find out what a constraint costs."""
UNAVAILABLE = "vetting_unavailable"
"""With status 503: constraints cannot be tried at all."""

logger = logging.getLogger("ray.serve")


class ConstraintError(ValueError):
    """A constraint goes no further.

    Attributes:
        error: The error object as vLLM has it; its `code` is the HTTP status.
    """

    def __init__(self, status: int, kind: str, message: str, field: str | None) -> None:
        super().__init__(message)
        self.error = orjson.dumps(
            {"error": {"message": message, "type": kind, "param": field, "code": status}}
        )
        self.status = status


class Constraints:
    """Those of all requests of one engine.

    Args:
        config: vLLM's configuration of the engine.

    Attributes:
        limits: Of each trial.
    """

    def __init__(self, config: Any) -> None:
        self.limits = VettingLimits()
        self._config = config
        self._vetting: Vetting | None = None

    def open(self, limits: VettingLimits) -> None:
        """Try constraints from now on; what that takes is loaded when `loaded` returns."""
        self.limits = limits
        self._vetting = Vetting(self._config, limits)
        self._vetting.start()
        # vLLM's wire types would compile these in the event loop as soon as they are read.
        protocol.validate_structural_tag_payload = _leave_to_vetting

    async def loaded(self) -> None:
        """Wait for the process that tries constraints; one that does not start is in the log."""
        if self._vetting is not None:
            await self._vetting.load()

    @property
    def applies(self) -> bool:
        """Whether constraints are tried."""
        return self._vetting is not None

    async def close(self) -> None:
        """End the processes."""
        if self._vetting is not None:
            await self._vetting.close()

    async def settle(
        self, params: SamplingParams, field: str | None, caller: str = ""
    ) -> Callable[[str], ConstraintError]:
        """Try the constraint of a request, and put it into the form that the engine gets.

        Args:
            params: vLLM's sampling parameters; changed.
            field: The member of the body that it comes from.
            caller: Name of the API key that asks, empty where there is none.

        Returns:
            Makes the error for when the engine finds it too costly to follow, for the reason that
            it is given. For a while the next of its kind is rejected for it.

        Raises:
            ConstraintError: The request ends here.
        """
        outputs = params.structured_outputs
        vetting = self._vetting
        assert vetting is not None
        members = {f.name: getattr(outputs, f.name) for f in fields(outputs) if f.init}
        given = {name: value for name, value in members.items() if value is not None}
        name = field or "structured_outputs"
        try:
            verdict = await vetting.check(given, caller)
        except VettingBusyError as error:
            # Another replica may have a place.
            raise ConstraintError(429, QUEUE_FULL, f"{name}: {error}", name) from error
        except VettingStarvedError as error:
            raise ConstraintError(429, STARVED, f"{name}: {error}", name) from error
        except VettingUnavailableError as error:
            logger.exception("constraints cannot be tried")
            raise ConstraintError(503, UNAVAILABLE, f"{name}: {error}", name) from error
        if verdict.settled is None:
            raise ConstraintError(400, REJECTED, f"{name}: {verdict.reason}", name)
        for member, value in verdict.settled.items():
            setattr(outputs, member, value)
        if verdict.costly:
            params.extra_args = {**(params.extra_args or {}), COSTLY: True}
        # This one only; it is not sent to the engine.
        params._validate_structured_outputs = _is_settled

        def too_costly(reason: str) -> ConstraintError:
            vetting.reject(given, reason)
            return ConstraintError(400, REJECTED, f"{name}: {reason}", name)

        return too_costly


def is_constrained(params: Any) -> bool:
    """Whether sampling parameters hold anything to compile."""
    outputs = getattr(params, "structured_outputs", None)
    return outputs is not None and not outputs.all_constraints_none()


def field_of(payload: Mapping[str, Any]) -> str | None:
    """The member of a body that its constraint comes from; `None` where it has none.

    vLLM prefers a tool that has to be called to a format, and a format to `structured_outputs`.
    """
    tools, choice = payload.get("tools"), payload.get("tool_choice")
    if tools and (choice == "required" or isinstance(choice, dict)):
        return "tools"
    form = payload.get("response_format")
    if isinstance(form, dict) and form.get("type") != "text":
        return "response_format"
    constraint = payload.get("structured_outputs")
    if isinstance(constraint, dict):
        kinds = ("json", "regex", "choice", "grammar", "json_object", "structural_tag")
        kind = next((kind for kind in kinds if constraint.get(kind) is not None), None)
        return f"structured_outputs.{kind}" if kind else "structured_outputs"
    return "tools" if tools else None


def _is_settled(*_: Any) -> None:
    """In the place of vLLM's validation: the trial did it."""


def _leave_to_vetting(payload: Any, *, parameter: str) -> None:
    """In the place of vLLM's compilation of structural tags."""
