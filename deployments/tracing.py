"""OpenTelemetry spans of a request: router, decision, each attempt, replica, vLLM's own engine.

Off unless OpenTelemetry's own environment variables name an endpoint; then a client's `traceparent`
is gone on from, and every attempt carries one to its replica. Nothing of a prompt or an answer is
in a span. Spans are sent by a thread of the SDK, and dropped where nobody takes them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any

from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.types import Scope

from deployments.links.frames import Endpoint
from deployments.replica.request_trace import Trail
from deployments.router.wire.openai import ApiError, ParsedRequest
from scheduler.costs.observations import Observation
from scheduler.types import Decision

SERVICE = "dynamic-llm-scheduler"
ENDPOINT_VARIABLE = "OTEL_EXPORTER_OTLP_ENDPOINT"
TRACES_ENDPOINT_VARIABLE = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
PROTOCOL_VARIABLE = "OTEL_EXPORTER_OTLP_PROTOCOL"
TRACES_PROTOCOL_VARIABLE = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"
PROTOCOLS = ("grpc", "http/protobuf")
OPERATIONS: Mapping[Endpoint, str] = {"chat": "chat", "completions": "text_completion"}
"""As OpenTelemetry's conventions for generative AI name them."""
TRACE_HEADERS = frozenset({b"traceparent", b"tracestate"})

_propagator = TraceContextTextMapPropagator()


def traces_endpoint(environment: Mapping[str, str]) -> tuple[str, str] | None:
    """Where spans go, and over what; `None` where tracing is off.

    Args:
        environment: With OpenTelemetry's variables.

    Raises:
        ValueError: A protocol that neither we nor vLLM speak.
    """
    own = environment.get(TRACES_ENDPOINT_VARIABLE)
    common = environment.get(ENDPOINT_VARIABLE)
    protocol = environment.get(TRACES_PROTOCOL_VARIABLE) or environment.get(PROTOCOL_VARIABLE)
    protocol = protocol or PROTOCOLS[0]
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true" or not (own or common):
        return None
    if protocol not in PROTOCOLS:
        raise ValueError(f"{PROTOCOL_VARIABLE}: must be one of {PROTOCOLS}, got {protocol!r}")
    if own or protocol == "grpc":
        return own or common or "", protocol
    return f"{(common or '').rstrip('/')}/v1/traces", protocol


def open_tracer() -> Tracer | None:
    """A tracer as OpenTelemetry's environment variables have it, `None` where tracing is off.

    Raises:
        ValueError: A protocol that neither we nor vLLM speak.
    """
    target = traces_endpoint(os.environ)
    if target is None:
        return None
    # Nobody pays for the SDK who does not use it.
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter  # noqa: PLC0415

    endpoint, protocol = target
    exporter: SpanExporter
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (  # noqa: PLC0415
            OTLPSpanExporter as GrpcExporter,
        )

        exporter = GrpcExporter(endpoint=endpoint)
    else:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
            OTLPSpanExporter as HttpExporter,
        )

        exporter = HttpExporter(endpoint=endpoint)
    named = "OTEL_SERVICE_NAME" in os.environ
    provider = TracerProvider(resource=Resource.create({} if named else {"service.name": SERVICE}))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider.get_tracer(SERVICE)


def trace_engine(engine_kwargs: dict[str, Any], environment: MutableMapping[str, str]) -> None:
    """Have vLLM send spans of its own to where ours go, unless its arguments say where.

    Args:
        engine_kwargs: Of the engine, changed in place.
        environment: OpenTelemetry's variables; vLLM reads one of the protocol's two only.

    Raises:
        ValueError: A protocol that neither we nor vLLM speak.
    """
    target = traces_endpoint(environment)
    if target is not None and "otlp_traces_endpoint" not in engine_kwargs:
        engine_kwargs["otlp_traces_endpoint"], protocol = target
        environment[TRACES_PROTOCOL_VARIABLE] = protocol


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
            _propagator.extract(headers),
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
        return _headers(self._attempt)

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
        _end(self._span, kind if status >= 500 else None)

    def _end_attempt(self, error: str | None) -> None:
        if self._attempt is not None:
            _end(self._attempt, error)
            self._attempt = None


@contextmanager
def replica_span(
    tracer: Tracer, headers: Mapping[str, str], model: str, trail: Trail
) -> Iterator[None]:
    """The span of a request in a replica, and in `trail` the headers that carry it to the engine.

    Args:
        tracer: Opens the span.
        headers: What came from the router.
        model: Model id.
        trail: Of the request, finished when the block ends.
    """
    span = tracer.start_span(
        f"generate {model}",
        _propagator.extract(headers),
        kind=SpanKind.SERVER,
        attributes={"gen_ai.request.model": model},
    )
    trail.trace_headers = _headers(span)
    error = None
    try:
        yield
    except Exception as failure:
        error = type(failure).__name__
        raise
    finally:
        span.set_attribute("gen_ai.usage.input_tokens", trail.input_tokens)
        span.set_attribute("gen_ai.usage.output_tokens", trail.output_tokens)
        span.set_attribute("llm_scheduler.queue_time_s", trail.queue_time_s)
        if trail.ttft_s is not None:
            span.set_attribute("llm_scheduler.ttft_s", trail.ttft_s)
        _end(span, error)


def _kind(error: BaseException | None) -> str | None:
    """Not its message, which may quote what the client sent."""
    if error is None:
        return None
    return (error.code if isinstance(error, ApiError) else None) or type(error).__name__


def _headers(span: Span) -> dict[str, str]:
    headers: dict[str, str] = {}
    _propagator.inject(headers, set_span_in_context(span))
    return headers


def _end(span: Span, error: str | None) -> None:
    if error is not None:
        span.set_attribute("error.type", error)
        span.set_status(Status(StatusCode.ERROR))
    span.end()
