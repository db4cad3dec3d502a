"""What the engine did for one HTTP request; the engine writes it, the meter reads it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Trail:
    """Filled in while the request runs.

    Attributes:
        resumed_ids: Token ids of the answer that another replica has generated; counted in
            `output_tokens`, and a part of the prompt for the engine.
        on_first_step: Called once, with the engine's state of the request, when its first step is
            in; set by who resumes.
        started: `time.monotonic()` at arrival.
        new_token_ids: Generated since the last look; the reader takes them out.
        prompt_tokens: Handed to the engine so far, whether it has begun with them or not.
        decoded: Generated so far. An answer that is not streamed has its other figures only at
            the end, this one always.
        on_step: Called for each step of the engine that did something for this request: prompt
            tokens computed, cached ones not included, and tokens generated.
        running: Generations (prompts of the request) that have not finished.
        trace_headers: W3C trace context for the engine, `None` where the request is not traced.
        ended_choices: Choices of them that have ended.
        cut_choices: Those that a limit on their tokens ended, not the model.
        scored: Log probabilities are to be kept, whether the client asked for them or not.
        scored_tokens: Generated tokens whose log probabilities are in `logprob`.
        logprob: Their sum.
        constrained_by: Member of the body that says what the answer may be, `None` for none.
        caller: Name of the API key that asks, empty where there is none.
        rank: Of the request among those that wait in the engine; lower ones are served first.
        held_s: Seconds that one of its sequences waited in front of the engine, at most.
        rejection: HTTP status and error object of a request that ends before the engine has it.
        replaying: What it gives now is of those.
        request: What vLLM made of a chat's body.
        parser: Reads its answers, so it has to see `resumed_ids` again; `None` where nothing does.
        reading_s: Processor time that it took since the last look.
        read: What it has read of whole answers, by their texts.
        offered: Generations that the engine is about to take or to reject.
        accepted: Is to be done when the engine has taken all of them; `None` where nothing waits
            for that.
    """

    resumed_ids: tuple[int, ...] = ()
    scored: bool = False
    on_first_step: Callable[[Any], None] | None = None
    started: float = field(default_factory=time.monotonic)
    new_token_ids: list[int] = field(default_factory=list)
    prompt_tokens: int = 0
    decoded: int = 0
    on_step: Callable[[int, int], None] | None = None
    trace_headers: Mapping[str, str] | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    queue_time_s: float = 0.0
    ttft_s: float | None = None
    running: int = 0
    finished: bool = False
    ended_choices: int = 0
    cut_choices: int = 0
    scored_tokens: int = 0
    logprob: float = 0.0
    constrained_by: str | None = None
    rejection: tuple[int, bytes] | None = None
    caller: str = ""
    rank: int = 0
    held_s: float = 0.0
    replaying: bool = False
    request: Any = None
    parser: Any = None
    reading_s: float = 0.0
    read: dict[str, Any] = field(default_factory=dict)
    offered: int = 0
    accepted: asyncio.Future[None] | None = None

    @property
    def cut(self) -> bool:
        """All choices were ended by a limit on their tokens."""
        return 0 < self.cut_choices == self.ended_choices

    @property
    def mean_logprob(self) -> float | None:
        """Of all generated tokens, `None` where none was scored."""
        return self.logprob / self.scored_tokens if self.scored_tokens else None

    def accept(self) -> None:
        """The engine has taken one generation."""
        self.offered -= 1
        if not self.offered and self.accepted is not None and not self.accepted.done():
            self.accepted.set_result(None)

    def stop(self) -> None:
        """The request is cancelled: count what the engine has until now.

        An answer that is not streamed has its figures only at the end, and none of them yet.
        """
        resumed = len(self.resumed_ids)
        self.input_tokens = max(self.prompt_tokens - resumed, 0)
        self.output_tokens = max(self.decoded + resumed, self.output_tokens)

    def take_token_ids(self) -> tuple[int, ...]:
        """The new token ids, once."""
        taken = tuple(self.new_token_ids)
        self.new_token_ids.clear()
        return taken

    def step(self, prefill: int, decode: int) -> None:
        """One step of the engine: prompt tokens that it computed, and tokens that it generated."""
        self.decoded += decode
        if self.on_step is not None:
            self.on_step(prefill, decode)


class StepFeed:
    """Brings the engine's steps to the trails of their requests, by the requests' ids.

    vLLM hands on the outputs of an answer that is not streamed only when it is whole; what its
    engine reports after each step has the tokens of all requests.

    Args:
        on_step: Called after each step of the engine.
    """

    def __init__(self, on_step: Callable[[], None] = lambda: None) -> None:
        self._on_step = on_step
        self._trails: dict[str, Trail] = {}

    def open(self, request_id: str, trail: Trail) -> None:
        """Steps of this request concern this trail from now on."""
        self._trails[request_id] = trail

    def close(self, request_id: str, trail: Trail) -> None:
        """The request is over."""
        # A client's id can be in use twice.
        if self._trails.get(request_id) is trail:
            del self._trails[request_id]

    def wrap(
        self, process_outputs: Callable[..., Any], states: Mapping[str, Any]
    ) -> Callable[..., Any]:
        """The `process_outputs` of vLLM's `OutputProcessor`, reading along.

        Args:
            process_outputs: The processor's own.
            states: Its `request_states`, by the engine's id of a request.
        """

        def reading_along(outputs: Any, *args: Any, **kwargs: Any) -> Any:
            self._on_step()
            # Before the processor's own turn, which forgets requests that are done.
            for output in outputs:
                state = states.get(output.request_id)
                trail = state and self._trails.get(state.external_req_id)
                if trail:
                    if trail.on_first_step is not None:
                        trail.on_first_step(state)
                        trail.on_first_step = None
                    prefill = output.prefill_stats
                    trail.step(
                        prefill.num_computed_tokens if prefill else 0, len(output.new_token_ids)
                    )
            return process_outputs(outputs, *args, **kwargs)

        return reading_along
