"""The OpenTelemetry span of a request in a replica."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry.trace import SpanKind, Tracer

from deployments.replica.request_trace import Trail
from deployments.tracing import PROPAGATOR, end_span, headers_of


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
        PROPAGATOR.extract(headers),
        kind=SpanKind.SERVER,
        attributes={"gen_ai.request.model": model},
    )
    trail.trace_headers = headers_of(span)
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
        end_span(span, error)
