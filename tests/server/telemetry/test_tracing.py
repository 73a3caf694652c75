"""Traces: a span for each request and its stages, below the client's own span; nothing of it without the flag."""

import gzip
import subprocess
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import httpx
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from server.app import create_app
from server.config import Settings, SettingsError, load_settings
from server.services import build_services
from server.telemetry.tracing import Tracing, open_tracing
from server.text.completion import Completions
from tests.server.building import chat_body, multipart, soft_prompt_files

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"

Traced = tuple[httpx.AsyncClient, InMemorySpanExporter]


@pytest.fixture
async def traced(settings: Settings) -> AsyncGenerator[Traced]:
    exporter = InMemorySpanExporter()
    app = create_app(build_services(settings), settings, tracing=Tracing(SimpleSpanProcessor(exporter)))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://test", timeout=60) as client,
    ):
        yield client, exporter


def tree_of(exporter: InMemorySpanExporter) -> tuple[ReadableSpan, dict[str, ReadableSpan]]:
    """The one request's span, and its children by name."""
    spans = exporter.get_finished_spans()
    exporter.clear()
    [root] = [span for span in spans if span.kind is SpanKind.SERVER]
    children = {span.name: span for span in spans if span is not root}
    for child in children.values():
        assert child.parent is not None
        assert root.context is not None
        assert child.parent.span_id == root.context.span_id
    return root, children


async def test_a_request_is_a_span_with_its_stages(traced: Traced) -> None:
    client, exporter = traced
    uploaded = await client.post("/v1/adapters", data={"name": "team"}, files=multipart(soft_prompt_files(1)))
    exporter.clear()
    headers = {"x-request-id": "mine", "traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=1"}
    body = chat_body("team", "a secret", stream=True, ignore_eos=True)
    await client.post("/v1/chat/completions", json=body, headers=headers)
    root, children = tree_of(exporter)
    assert root.name == "POST /v1/chat/completions"
    assert root.context is not None
    assert root.parent is not None
    assert (f"{root.context.trace_id:032x}", f"{root.parent.span_id:016x}") == (TRACE, PARENT)
    assert root.attributes is not None
    assert root.attributes["hotprompt.request_id"] == "mine"
    assert root.attributes["hotprompt.adapter_digest"] == uploaded.json()["digest"]
    assert root.attributes["gen_ai.usage.output_tokens"] == 24
    assert root.attributes["gen_ai.response.finish_reasons"] == "length"
    assert "secret" not in str(dict(root.attributes))
    stages = [children[name] for name in ("queue", "prefill", "decode")]
    ends = [root.start_time or 0]
    for stage in stages:
        assert stage.start_time is not None
        assert stage.end_time is not None
        assert ends[-1] <= stage.start_time <= stage.end_time
        ends.append(stage.end_time)
    assert ends[-1] <= (root.end_time or 0)


async def test_without_a_good_parent_a_trace_begins(traced: Traced) -> None:
    client, exporter = traced
    for traceparent in (None, "nonsense", f"00-{'0' * 32}-{PARENT}-01", "00-" + "f" * 5000):
        headers = {} if traceparent is None else {"traceparent": traceparent}
        await client.get("/v1/models", headers=headers)
        root, children = tree_of(exporter)
        assert root.parent is None
        assert not children


async def test_what_is_not_sampled_by_the_client_is_not_traced(traced: Traced) -> None:
    client, exporter = traced
    await client.get("/v1/models", headers={"traceparent": f"00-{TRACE}-{PARENT}-00"})
    await client.get("/health")
    assert not exporter.get_finished_spans()


async def test_refusals_and_failures_are_told_apart(traced: Traced) -> None:
    client, exporter = traced
    await client.post("/v1/chat/completions", json=chat_body("nobody"))
    root, _ = tree_of(exporter)
    assert root.status.status_code is StatusCode.UNSET
    await client.post("/v1/completions", json={"model": "tiny-llama", "prompt": [100_000], "max_tokens": 2})
    root, _ = tree_of(exporter)
    assert root.status.status_code is StatusCode.UNSET
    assert (root.attributes or {})["error.type"] == "PromptInvalid"


async def test_an_answer_that_fails_is_an_error(traced: Traced, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object) -> None:
        raise RuntimeError

    client, exporter = traced
    monkeypatch.setattr(Completions, "complete", fail)
    await client.post("/v1/chat/completions", json=chat_body("tiny-llama"))
    root, _ = tree_of(exporter)
    assert root.status.status_code is StatusCode.ERROR


async def test_spans_are_sent_to_the_collector(settings: Settings) -> None:
    with collector() as (url, received):
        sent_to = settings.model_copy(update={"otlp_endpoint": url})
        app = create_app(build_services(settings), settings, tracing=open_tracing(sent_to))
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://test", timeout=60) as client,
        ):
            await client.get("/v1/models")
    [(path, body)] = received
    assert path == "/v1/traces"
    assert b"GET /v1/models" in body


@contextmanager
def collector() -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    """An HTTP server that keeps what is posted to it: path and body."""
    received: list[tuple[str, bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            received.append((self.path, gzip.decompress(body) if self.headers["content-encoding"] == "gzip" else body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", received
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.slow
def test_nothing_is_imported_where_traces_are_off() -> None:
    program = (
        "import sys; from server.serve import serve; from server.config import Settings\n"
        "from server.telemetry.tracing import open_tracing\n"
        "assert open_tracing(Settings()) is None\n"
        "print([name for name in sys.modules if name.startswith(('opentelemetry.sdk', 'opentelemetry.exporter'))])"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=250, check=False)
    assert (run.returncode, run.stdout) == (0, "[]\n"), run.stderr


def test_the_extra_is_asked_for_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(SettingsError, match=r"--otlp-endpoint: .*hotprompt\[otel\]"):
        open_tracing(load_settings(otlp_endpoint="http://127.0.0.1:4318"))


@pytest.mark.parametrize(
    "wrong", ["collector:4318", "ftp://x", "http://user:secret@x", "http://x/?key=secret", "http://"]
)
def test_an_endpoint_is_an_address_without_secrets(wrong: str) -> None:
    with pytest.raises(SettingsError, match="--otlp-endpoint"):
        load_settings(otlp_endpoint=wrong)
