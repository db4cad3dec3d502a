"""OpenTelemetry spans of a request in the router: request, decision, each attempt."""

from __future__ import annotations

from opentelemetry.trace import Span, SpanKind, Tracer, set_span_in_context
from starlette.types import Scope

from deployments.links.frames import Endpoint
from deployments.router.wire.api_error import ApiError
from deployments.router.wire.openai import ParsedRequest
from deployments.tracing import OPERATIONS, PROPAGATOR, TRACE_HEADERS, end_span, headers_of
from scheduler.costs.observations import Observation
from scheduler.types import Decision


class RequestTrace:
    """One request in the router.

    Args:
        tracer: Opens its spans.
        scope: Of the request; its headers may carry the client's trace context.
        endpoint: Whose wire format.
    """

    def __init__(self, tracer: Tracer, scope: Scope, endpoint: Endpoint) -> None:
        self._tracer = tracer
        headers = {
            k.decode(): v.decode("latin-1") for k, v in scope["headers"] if k in TRACE_HEADERS
        }
        self._operation = OPERATIONS[endpoint]
        self._span = tracer.start_span(
            self._operation,
            PROPAGATOR.extract(headers),
            kind=SpanKind.SERVER,
            attributes={
                "gen_ai.operation.name": self._operation,
                "http.request.method": scope["method"],
                "url.path": scope["path"],
            },
        )
        self._context = set_span_in_context(self._span)
        self._attempt: Span | None = None

    def decided(self, parsed: ParsedRequest, decision: Decision, began_ns: int) -> None:
        """The decision is made.

        Args:
            parsed: The request.
            decision: Who is to answer.
            began_ns: Unix time at which the body was there.
        """
        self._span.update_name(f"{self._operation} {parsed.model}")
        self._span.set_attribute("gen_ai.request.model", parsed.model)
        self._span.set_attribute("llm_scheduler.decision_id", decision.decision_id)
        span = self._tracer.start_span("decide", self._context, start_time=began_ns)
        if span.is_recording():
            span.set_attribute("llm_scheduler.model", decision.model)
            span.set_attribute("llm_scheduler.policy", decision.policy)
            span.set_attribute("llm_scheduler.task", decision.task)
            span.set_attribute("llm_scheduler.profile_version", decision.profile_version)
            span.set_attribute("llm_scheduler.candidates", len(decision.candidates))
            if decision.candidates:
                predicted = decision.chosen.prediction
                span.set_attribute("llm_scheduler.predicted_runtime_s", predicted.runtime_s)
                span.set_attribute("llm_scheduler.predicted_energy_joules", predicted.energy_joules)
        span.end()

    def attempt(self, model: str, begins: str) -> dict[str, str]:
        """A model is asked; the headers that carry the trace on to it."""
        self._end_attempt(None)
        self._attempt = self._tracer.start_span(
            f"attempt {model}",
            self._context,
            kind=SpanKind.CLIENT,
            attributes={"gen_ai.request.model": model, "llm_scheduler.begins": begins},
        )
        return headers_of(self._attempt)

    def broke(self, error: ApiError) -> None:
        """The model that was asked broke."""
        self._end_attempt(_kind(error))

    def finish(
        self, observation: Observation | None, status: int, error: BaseException | None
    ) -> None:
        """The answer has left, or an error in its place."""
        kind = _kind(error)
        self._end_attempt(kind)
        self._span.set_attribute("http.response.status_code", status)
        if observation is not None:
            self._span.set_attribute("gen_ai.response.model", observation.model)
            self._span.set_attribute("gen_ai.usage.input_tokens", observation.input_tokens)
            self._span.set_attribute("gen_ai.usage.output_tokens", observation.output_tokens)
            if observation.energy_joules is not None:
                joules = observation.energy_joules
                self._span.set_attribute("llm_scheduler.energy_joules", joules)
        # What a client did wrong is no error of a server's span.
        end_span(self._span, kind if status >= 500 else None)

    def _end_attempt(self, error: str | None) -> None:
        if self._attempt is not None:
            end_span(self._attempt, error)
            self._attempt = None


def _kind(error: BaseException | None) -> str | None:
    """Not its message, which may quote what the client sent."""
    if error is None:
        return None
    return (error.code if isinstance(error, ApiError) else None) or type(error).__name__
