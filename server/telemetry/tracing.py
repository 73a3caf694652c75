"""Tracing: each request as OpenTelemetry spans, made when it has ended. Knows no route.

OpenTelemetry's SDK is an extra of this package, and is imported when a server is told where to send traces.
"""

import time
from typing import TYPE_CHECKING, Any

from server.config import Settings, SettingsError
from server.telemetry.observed import Observed
from server.telemetry.request_log import QUIET_ROUTES
from server.text.request_notes import Outcome

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import SpanProcessor
    from opentelemetry.trace import Span

EXPORT_SECONDS = 5
"""What one export may take; what is not sent when the server ends is given up after as long."""
TRACES_PATH = "/v1/traces"

Attributes = dict[str, str | int | float]


def open_tracing(settings: Settings) -> "Tracing | None":
    """What sends spans to the settings' collector, or None where they name none.

    Raises SettingsError where the extra is not installed.
    """
    endpoint = settings.otlp_endpoint
    if endpoint is None:
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise SettingsError("--otlp-endpoint: OpenTelemetry is not here; pip install 'hotprompt[otel]'") from error
    has_path = "/" in endpoint.partition("://")[2].rstrip("/")
    exporter = OTLPSpanExporter(endpoint if has_path else endpoint.rstrip("/") + TRACES_PATH, timeout=EXPORT_SECONDS)
    return Tracing(BatchSpanProcessor(exporter))


class Tracing:
    """One for each app; whoever has it must close it. Nothing of OpenTelemetry's global state is touched."""

    def __init__(self, processor: "SpanProcessor") -> None:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = TracerProvider(resource=Resource.create({"service.name": "hotprompt"}), shutdown_on_exit=False)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("hotprompt")
        self._propagator = TraceContextTextMapPropagator()

    def close(self) -> None:
        """Send what waits, for some seconds at most."""
        self._provider.force_flush(EXPORT_SECONDS * 1000)
        self._provider.shutdown()

    def trace(self, observed: Observed) -> None:
        """Make a request's span, below the client's own if it named one, and its children queue, prefill and decode."""
        from opentelemetry.trace import SpanKind, set_span_in_context

        if observed.route in QUIET_ROUTES:
            return
        clock = _WallClock(observed.ended_at)
        notes = observed.notes
        span = self._tracer.start_span(
            f"{observed.answered.method} {observed.answered.route}",
            context=self._parent_of(observed),
            kind=SpanKind.SERVER,
            attributes=_attributes(observed),
            start_time=clock.ns(notes.arrived_at),
        )
        within = set_span_in_context(span)
        self._child("queue", notes.asked_at, notes.admitted_at, within, clock)
        self._child("prefill", notes.admitted_at, notes.first_token_at, within, clock)
        self._child("decode", notes.first_token_at, notes.last_token_at, within, clock)
        _set_status(span, observed)
        span.end(clock.ns(observed.ended_at))

    def _child(self, name: str, start: float | None, end: float | None, within: "Context", clock: "_WallClock") -> None:
        if start is not None and end is not None:
            span = self._tracer.start_span(name, context=within, start_time=clock.ns(start))
            span.end(clock.ns(max(start, end)))

    def _parent_of(self, observed: Observed) -> "Context":
        from opentelemetry.context import Context

        carrier: dict[str, Any] = {}
        if observed.traceparent is not None:
            carrier["traceparent"] = observed.traceparent
        if observed.tracestate is not None:
            carrier["tracestate"] = observed.tracestate
        return self._propagator.extract(carrier, Context())


class _WallClock:
    """Nanoseconds since the epoch of what happened up to now, by `time.perf_counter`."""

    def __init__(self, ended_at: float) -> None:
        self._now = ended_at
        self._now_ns = time.time_ns()

    def ns(self, at: float) -> int:
        return self._now_ns - int((self._now - at) * 1e9)


def _attributes(observed: Observed) -> Attributes:
    """The names are OpenTelemetry's where it has them. There is no text of anybody's in them."""
    notes = observed.notes
    wanted: dict[str, str | int | float | None] = {
        "http.request.method": observed.answered.method,
        "http.route": observed.route,
        "http.response.status_code": observed.status,
        "hotprompt.request_id": observed.request_id,
        "hotprompt.key_id": observed.key_id,
    }
    if notes.model is not None:
        wanted |= {
            "gen_ai.request.model": notes.model[:256],
            "gen_ai.usage.input_tokens": notes.num_prompt_tokens,
            "gen_ai.usage.output_tokens": notes.num_generated_tokens,
            "gen_ai.response.finish_reasons": ",".join(sorted(set(notes.finish_reasons))) or None,
            "hotprompt.cached_tokens": notes.num_cached_tokens,
            "hotprompt.outcome": None if notes.outcome is None else notes.outcome.value,
            "error.type": notes.error,
        }
    if notes.adapter is not None:
        wanted["hotprompt.adapter"] = notes.adapter.name
        wanted["hotprompt.adapter_digest"] = notes.adapter.digest_prefix
    return {name: value for name, value in wanted.items() if value is not None}


def _set_status(span: "Span", observed: Observed) -> None:
    from opentelemetry.trace import StatusCode

    has_failed_in_stream = observed.notes.outcome is Outcome.FAILED and observed.status == 200
    if observed.status >= 500 or has_failed_in_stream:
        span.set_status(StatusCode.ERROR)
