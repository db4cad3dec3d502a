"""Does with a constraint what the engine will do with it: compiles it, and takes some steps.

Private names of vLLM again, held by tests/unit/deployments/replica/test_compile_check.py. What it
calls is native code that may take gigabytes and hours or end its process, so that it runs in a
process of its own, see `deployments.replica.vetting.process`.
"""

from __future__ import annotations

import random
from dataclasses import fields
from typing import Any

import numpy as np
from vllm.exceptions import VLLMValidationError
from vllm.sampling_params import SamplingParams, StructuredOutputsParams
from vllm.tokenizers import cached_tokenizer_from_config
from vllm.v1.structured_output.backend_guidance import GuidanceBackend
from vllm.v1.structured_output.backend_types import StructuredOutputGrammar
from vllm.v1.structured_output.backend_xgrammar import XgrammarBackend
from vllm.v1.structured_output.request import get_structured_output_key
from vllm.v1.structured_output.utils import maybe_wrap_mistral_common_tokenizer

from deployments.replica.vetting.step_costs import MeteredGrammar

STEPS = 64
BITS = 32
LONGEST_MESSAGE = 600

SETTLED = ("_backend", "_backend_was_auto")
"""What vLLM's validation adds to the members that a client may set."""


class RejectedError(Exception):
    """The constraint is not for the engine; the message says why."""


class CompileCheck:
    """Of one engine.

    Args:
        config: vLLM's configuration of the engine.
    """

    def __init__(self, config: Any) -> None:
        self._config = config
        self._tokenizer = maybe_wrap_mistral_common_tokenizer(
            cached_tokenizer_from_config(model_config=config.model_config)
        )
        self._vocab_size = config.model_config.get_vocab_size()
        self._backends: dict[str, Any] = {}
        # Before the processes for the single constraints are forked off: they share it.
        configured = config.structured_outputs_config.backend
        for name in ("xgrammar", "guidance") if configured == "auto" else (configured,):
            self._backend(name)

    def _backend(self, name: str) -> Any:
        if name not in self._backends:
            self._backends[name] = _maker(name)(
                self._config, tokenizer=self._tokenizer, vocab_size=self._vocab_size
            )
        return self._backends[name]

    def check(self, constraint: dict[str, Any]) -> dict[str, Any]:
        """Validate and compile a constraint, and generate a few tokens within it.

        Args:
            constraint: Members of vLLM's `StructuredOutputsParams`.

        Returns:
            The members as vLLM's validation leaves them, `SETTLED` included.

        Raises:
            RejectedError: It cannot be compiled, allows no text, or slows down every step.
        """
        try:
            return self._check(constraint)
        except VLLMValidationError as error:
            raise RejectedError(_short(error)) from error
        except (ValueError, TypeError, KeyError, RuntimeError, RecursionError) as error:
            raise RejectedError(f"cannot be compiled: {_short(error)}") from error

    def _check(self, constraint: dict[str, Any]) -> dict[str, Any]:
        params = SamplingParams(structured_outputs=StructuredOutputsParams(**constraint))
        params._validate_structured_outputs(
            self._config.model_config, self._config.structured_outputs_config, self._tokenizer
        )
        settled = params.structured_outputs
        backend = self._backend(settled._backend)
        grammar = backend.compile_grammar(*get_structured_output_key(settled))
        self._walk(grammar, backend.allocate_token_bitmask(1), random.Random(0))
        names = [field.name for field in fields(settled) if field.init]
        return {name: getattr(settled, name) for name in (*names, *SETTLED)}

    def _walk(self, grammar: StructuredOutputGrammar, mask: Any, choice: random.Random) -> None:
        if mask.shape[-1] != -(-self._vocab_size // BITS):
            raise RejectedError("needs a backend that does not fit this model's vocabulary")
        metered = MeteredGrammar(grammar)
        for step in range(STEPS):
            if metered.is_terminated():
                return
            metered.fill_bitmask(mask, 0)
            if error := _fault(grammar):
                raise RejectedError(f"cannot be followed: {error}")
            bits = np.unpackbits(mask.numpy().view(np.uint8), bitorder="little")
            allowed = np.flatnonzero(bits[: self._vocab_size])
            if len(allowed) == 0:
                raise RejectedError(
                    "leads to a place where nothing can follow" if step else "allows no text"
                )
            token = int(allowed[choice.randrange(len(allowed))])
            if not metered.accept_tokens("vetting", [token]):
                raise RejectedError(metered.excess or "rejects a token that it allows")


def _maker(name: str) -> Any:
    if name == "xgrammar":
        return XgrammarBackend
    if name == "guidance":
        return GuidanceBackend
    if name == "outlines":
        from vllm.v1.structured_output.backend_outlines import OutlinesBackend  # noqa: PLC0415

        return OutlinesBackend
    from vllm.v1.structured_output.backend_lm_format_enforcer import (  # noqa: PLC0415
        LMFormatEnforcerBackend,
    )

    return LMFormatEnforcerBackend


def _fault(grammar: StructuredOutputGrammar) -> str:
    """What guidance says of a grammar that it gave up; it would end the answer as if whole."""
    matcher = getattr(grammar, "ll_matcher", None)
    fault = matcher.get_error() if matcher is not None else ""
    return str(fault).splitlines()[0][:LONGEST_MESSAGE] if fault else ""


def _short(error: Exception) -> str:
    """The first lines: compilers add a dump of their state."""
    text = str(error).strip() or type(error).__name__
    return text[:LONGEST_MESSAGE]
