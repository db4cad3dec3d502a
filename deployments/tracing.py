"""OpenTelemetry spans of a request: router, decision, each attempt, replica, vLLM's own engine.

Off unless OpenTelemetry's own environment variables name an endpoint; then a client's `traceparent`
is gone on from, and every attempt carries one to its replica. Nothing of a prompt or an answer is
in a span. Spans are sent by a thread of the SDK, and dropped where no collector takes them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping
from typing import Any

from opentelemetry.trace import Span, Status, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from deployments.links.frames import Endpoint

SERVICE = "dynamic-llm-scheduler"
ENDPOINT_VARIABLE = "OTEL_EXPORTER_OTLP_ENDPOINT"
TRACES_ENDPOINT_VARIABLE = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
PROTOCOL_VARIABLE = "OTEL_EXPORTER_OTLP_PROTOCOL"
TRACES_PROTOCOL_VARIABLE = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"
PROTOCOLS = ("grpc", "http/protobuf")
OPERATIONS: Mapping[Endpoint, str] = {
    "chat": "chat",
    "completions": "text_completion",
    "embeddings": "embeddings",
    "rerank": "rerank",
    "score": "score",
}
"""As OpenTelemetry's conventions for generative AI name them, as far as they do."""
TRACE_HEADERS = frozenset({b"traceparent", b"tracestate"})

PROPAGATOR = TraceContextTextMapPropagator()


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
    # Without tracing the SDK costs nothing.
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


def headers_of(span: Span) -> dict[str, str]:
    """The headers that carry a span's context to the next process."""
    headers: dict[str, str] = {}
    PROPAGATOR.inject(headers, set_span_in_context(span))
    return headers


def end_span(span: Span, error: str | None) -> None:
    """End a span, as failed where there is an error's type."""
    if error is not None:
        span.set_attribute("error.type", error)
        span.set_status(Status(StatusCode.ERROR))
    span.end()
