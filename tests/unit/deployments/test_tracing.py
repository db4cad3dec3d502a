"""Spans of requests, kept in memory by OpenTelemetry's own SDK."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fake_serve import ACCURATE, FRUGAL, ServeDouble, Site
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode, Tracer
from ray.exceptions import ActorDiedError

from deployments.replica.request_trace import Trail
from deployments.replica.tracing import replica_span
from deployments.tracing import open_tracer, trace_engine, traces_endpoint

TRACE_ID, PARENT_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE_ID}-{PARENT_ID}-01"
PROMPT = "Sesame, open"


class Spans:
    def __init__(self) -> None:
        self._memory = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self._memory))
        self.tracer: Tracer = provider.get_tracer("tests")

    def __getitem__(self, name: str) -> ReadableSpan:
        (span,) = (span for span in self.all() if span.name == name)
        return span

    def all(self) -> tuple[ReadableSpan, ...]:
        return self._memory.get_finished_spans()


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Spans:
    recorded = Spans()
    monkeypatch.setattr(
        "deployments.router.observe.instruments.open_tracer", lambda: recorded.tracer
    )
    return recorded


def ids(traceparent: str) -> tuple[int, int]:
    _, trace, span, _ = traceparent.split("-")
    return int(trace, 16), int(span, 16)


def complete(site: Site, **body: Any) -> Any:
    asked = {"model": "auto", "prompt": PROMPT, "routing": {"weights": {"energy": 1}}} | body
    headers = {"traceparent": TRACEPARENT, "tracestate": "vendor=1"}
    return site.request("POST", "/v1/completions", json=asked, headers=headers)


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_goes_on_from_the_clients_trace_to_the_replica(
    spans: Spans, start_site: Callable[..., Site], serve: ServeDouble, stream: bool
) -> None:
    response = complete(start_site(), stream=stream)
    assert response.status_code == 200
    request, decide, attempt = (
        spans["text_completion auto"],
        spans["decide"],
        spans[f"attempt {FRUGAL}"],
    )
    for span in (request, decide, attempt):
        assert span.context.trace_id == int(TRACE_ID, 16)
    assert request.parent
    assert request.parent.span_id == int(PARENT_ID, 16)
    assert decide.parent == attempt.parent == request.context
    assert (request.kind, attempt.kind) == (SpanKind.SERVER, SpanKind.CLIENT)
    (call,) = serve.models[FRUGAL].calls
    sent = call.request.trace_headers
    assert ids(sent["traceparent"]) == (attempt.context.trace_id, attempt.context.span_id)
    assert sent["tracestate"] == "vendor=1"
    attributes = dict(request.attributes or {})
    assert attributes["gen_ai.response.model"] == FRUGAL
    assert attributes["gen_ai.usage.output_tokens"] == 2
    assert attributes["llm_scheduler.energy_joules"] == 1.5
    assert attributes["http.response.status_code"] == 200
    assert attributes["llm_scheduler.decision_id"] == response.headers["x-decision-id"]
    predicted_s = dict(decide.attributes or {})["llm_scheduler.predicted_runtime_s"]
    assert isinstance(predicted_s, float)
    assert predicted_s > 0
    times = (request.start_time, decide.start_time, decide.end_time, attempt.start_time)
    known = [time for time in times if time is not None]
    assert len(known) == len(times)
    assert known == sorted(known)


def test_every_attempt_is_a_span(
    spans: Spans, start_site: Callable[..., Site], serve: ServeDouble
) -> None:
    serve.models[FRUGAL].reply = ActorDiedError()
    assert complete(start_site()).status_code == 200
    broken, second = spans[f"attempt {FRUGAL}"], spans[f"attempt {ACCURATE}"]
    assert (broken.status.status_code, second.status.status_code) == (
        StatusCode.ERROR,
        StatusCode.UNSET,
    )
    assert dict(broken.attributes or {})["error.type"] == "model_failed"
    assert spans["text_completion auto"].status.status_code == StatusCode.UNSET


def test_a_refusal_ends_the_span_and_is_no_error_of_ours(
    spans: Spans, start_site: Callable[..., Site]
) -> None:
    assert complete(start_site(), model="unheard-of").status_code == 404
    (span,) = spans.all()
    assert dict(span.attributes or {})["http.response.status_code"] == 404
    assert span.status.status_code == StatusCode.UNSET


def test_nothing_of_a_prompt_is_in_a_span(spans: Spans, start_site: Callable[..., Site]) -> None:
    site = start_site()
    complete(site)
    complete(site, temperature=PROMPT, max_tokens=PROMPT)
    assert len(spans.all()) >= 4
    for span in spans.all():
        assert PROMPT not in span.to_json()


def test_off_no_span_is_opened_and_no_context_travels(site: Site, serve: ServeDouble) -> None:
    assert complete(site).status_code == 200
    assert serve.models[FRUGAL].calls[0].request.trace_headers is None


def test_a_replica_goes_on_and_hands_its_own_span_to_the_engine() -> None:
    spans, trail = Spans(), Trail()
    with replica_span(spans.tracer, {"traceparent": TRACEPARENT}, "m", trail):
        trail.output_tokens, trail.ttft_s = 7, 0.5
    span = spans["generate m"]
    assert span.parent
    assert span.parent.span_id == int(PARENT_ID, 16)
    assert trail.trace_headers is not None
    assert ids(trail.trace_headers["traceparent"]) == (int(TRACE_ID, 16), span.context.span_id)
    assert dict(span.attributes or {})["gen_ai.usage.output_tokens"] == 7
    assert dict(span.attributes or {})["llm_scheduler.ttft_s"] == 0.5


def test_a_replica_that_breaks_says_so() -> None:
    spans = Spans()
    with (
        pytest.raises(RuntimeError),
        replica_span(spans.tracer, {"traceparent": TRACEPARENT}, "m", Trail()),
    ):
        raise RuntimeError(PROMPT)
    span = spans["generate m"]
    assert span.status.status_code == StatusCode.ERROR
    assert dict(span.attributes or {})["error.type"] == "RuntimeError"
    assert PROMPT not in span.to_json()


@pytest.mark.parametrize(
    ("environment", "target"),
    [
        ({}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317"}, ("http://c:4317", "grpc")),
        (
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318/",
                "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            },
            ("http://c:4318/v1/traces", "http/protobuf"),
        ),
        (
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317",
                "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://t/x",
                "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
            },
            ("http://t/x", "http/protobuf"),
        ),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_SDK_DISABLED": "true"}, None),
    ],
)
def test_the_variables_of_opentelemetry_say_where_spans_go(
    environment: dict[str, str], target: Any
) -> None:
    assert traces_endpoint(environment) == target


def test_an_unknown_protocol_is_named() -> None:
    with pytest.raises(ValueError, match="http/json"):
        traces_endpoint(
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c",
                "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json",
            }
        )


def test_without_an_endpoint_there_is_no_tracer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", raising=False)
    assert open_tracer() is None


def test_the_engine_sends_its_spans_to_where_ours_go() -> None:
    environment = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
    }
    own: dict[str, Any] = {"otlp_traces_endpoint": "http://elsewhere"}
    trace_engine(own, environment)
    assert own == {"otlp_traces_endpoint": "http://elsewhere"}
    engine: dict[str, Any] = {}
    trace_engine(engine, environment)
    assert engine == {"otlp_traces_endpoint": "http://c:4318/v1/traces"}
    # vLLM reads this one only.
    assert environment["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"] == "http/protobuf"
    off: dict[str, Any] = {}
    trace_engine(off, {})
    assert off == {}
