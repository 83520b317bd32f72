"""Spans of a real server's calls, beside those of the client that makes them."""

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from grpc import aio
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode, Tracer

from lavant.client import AsyncClient, Client
from lavant.server.errors import StartError
from lavant.server.store.sqlite import SQLiteEngine
from lavant.v1 import event_service_pb2 as pb
from support.calls import append, create, ended_run, get, listed, until
from support.events import batch_of, run_started
from support.server import Server, connected, serving
from support.status import refused
from support.streams import opened, stream, streamed

STREAM = "lavant.v1.EventService/StreamEvents"


@pytest.fixture
def spans() -> InMemorySpanExporter:
    """All spans that have ended."""
    return InMemorySpanExporter()


@pytest.fixture
def tracer(spans: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tracer]:
    """What the application opens spans with; its provider is the global one, which can be set only once a process."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(spans))
    monkeypatch.setattr("opentelemetry.trace._TRACER_PROVIDER", provider)
    yield provider.get_tracer("application")
    provider.shutdown()


@pytest.fixture
async def traced(tmp_path: Path, tracer: Tracer) -> AsyncIterator[Server]:
    """A server that traces; a span is open while it starts."""
    with tracer.start_as_current_span("start"):
        running = serving(tmp_path, otel=True)
        server = await running.__aenter__()
    yield server
    await running.__aexit__(None, None, None)


def named(spans: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    return [span for span in spans.get_finished_spans() if span.name == name]


async def the_span(spans: InMemorySpanExporter, name: str) -> ReadableSpan:
    """The only span of a name, as soon as it has ended."""
    await until(lambda: bool(named(spans, name)))
    (span,) = named(spans, name)
    return span


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def events(span: ReadableSpan) -> list[tuple[str, dict[str, Any]]]:
    return [(event.name, dict(event.attributes or {})) for event in span.events]


async def test_a_call_is_the_child_of_the_span_it_is_made_in(
    traced: Server, tracer: Tracer, spans: InMemorySpanExporter
) -> None:
    async with AsyncClient(traced.target) as client:
        with tracer.start_as_current_span("request") as parent:
            async with client.runs.start("agent", on_error="raise") as run:
                await run.text("Cold.")
            await client.runs.get(run.id)
            async with client.runs.stream(run.id) as events_of_run:
                await events_of_run.text()
    for name in ("lavant.v1.EventService/PublishEvents", "lavant.v1.RunService/GetRun", STREAM):
        span = await the_span(spans, name)
        assert span.kind == SpanKind.SERVER
        assert span.parent is not None
        assert (span.parent.span_id, span.parent.is_remote) == (parent.get_span_context().span_id, True)
        assert span.parent.trace_id == parent.get_span_context().trace_id


async def test_a_call_of_the_blocking_client(traced: Server, tracer: Tracer, spans: InMemorySpanExporter) -> None:
    await create(traced.stubs)

    def call() -> int:
        with Client(traced.target) as client, tracer.start_as_current_span("request") as parent:
            client.runs.get("run")
            return parent.get_span_context().span_id

    parent_id = await asyncio.to_thread(call)
    span = await the_span(spans, "lavant.v1.RunService/GetRun")
    assert span.parent is not None
    assert span.parent.span_id == parent_id


async def test_a_call_without_a_trace_begins_one(traced: Server, spans: InMemorySpanExporter) -> None:
    await create(traced.stubs)
    span = await the_span(spans, "lavant.v1.RunService/CreateRun")
    assert span.parent is None, "not even what the server was started in"
    assert attributes(span) == {
        "rpc.system.name": "grpc",
        "rpc.method": "lavant.v1.RunService/CreateRun",
        "rpc.response.status_code": "OK",
    }
    assert span.status.status_code == StatusCode.UNSET


async def test_what_the_caller_did_wrong_is_no_fault(traced: Server, spans: InMemorySpanExporter) -> None:
    with refused("RUN_NOT_FOUND"):
        await get(traced.stubs)
    span = await the_span(spans, "lavant.v1.RunService/GetRun")
    assert attributes(span)["rpc.response.status_code"] == "NOT_FOUND"
    assert span.status.status_code == StatusCode.UNSET


async def test_a_fault_of_the_server(
    traced: Server, spans: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(SQLiteEngine, "get_run", fail)
    with pytest.raises(aio.AioRpcError):
        await get(traced.stubs)
    span = await the_span(spans, "lavant.v1.RunService/GetRun")
    assert attributes(span)["rpc.response.status_code"] == attributes(span)["error.type"] == "INTERNAL"
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, None)
    assert not span.events


async def test_a_stream_is_one_span_that_shows_its_course(traced: Server, spans: InMemorySpanExporter) -> None:
    await ended_run(traced.stubs, size=40)
    await streamed(traced.stubs)
    span = await the_span(spans, STREAM)
    assert [name for name, _ in events(span)] == ["opened", "caught_up", "end"]
    assert events(span)[-1][1] == {"lavant.end.reason": "RUN_FINISHED"}
    assert attributes(span)["lavant.run.id"] == "run"
    assert attributes(span)["rpc.response.status_code"] == "OK"


async def test_streams_that_are_refused_or_left_are_no_faults(traced: Server, spans: InMemorySpanExporter) -> None:
    await create(traced.stubs)
    held = await opened(traced.stubs, session_id="one")
    with refused("CONSUMER_BUSY"):
        await stream(traced.stubs, session_id="two").read()
    turned_away = await the_span(spans, STREAM)
    assert events(turned_away) == [("end", {"lavant.end.reason": "CONSUMER_BUSY"})]
    assert attributes(turned_away)["rpc.response.status_code"] == "UNAVAILABLE"
    held.cancel()
    await until(lambda: len(named(spans, STREAM)) == 2)
    left = named(spans, STREAM)[1]
    assert events(left)[-1] == ("end", {"lavant.end.reason": "CANCELLED"})
    assert attributes(left)["rpc.response.status_code"] == "CANCELLED"
    assert {turned_away.status.status_code, left.status.status_code} == {StatusCode.UNSET}


async def test_spans_hold_no_payloads_tokens_or_names_of_consumers(traced: Server, spans: InMemorySpanExporter) -> None:
    async with connected(traced.target) as stubs:
        await create(stubs, name="name-of-mine")
        await append(stubs, [run_started('"text-of-mine"')], producer_id="producer-of-mine")
        request = pb.AppendEventsRequest(batch=batch_of(run_id="id/of-mine"))
        with pytest.raises(aio.AioRpcError):
            await stubs.events.AppendEvents(request, metadata=(("authorization", "Bearer key-of-mine"),))
        frames = await streamed(stubs, consumer_id="reader-of-mine", stop=pb.STOP_POSITION_HEAD)
        await listed(stubs)
    await until(lambda: len(spans.get_finished_spans()) == 6)
    told = [span.to_json() for span in spans.get_finished_spans()]
    assert not [text for text in told if "of-mine" in text or frames.last.resume_token in text]


async def test_an_exporter_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("opentelemetry.trace._TRACER_PROVIDER", None)
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "nowhere")
    with pytest.raises(StartError, match="opentelemetry-exporter-nowhere"):
        async with serving(tmp_path, otel=True):
            pass


async def logged_by_a_process(folder: Path, *, otel: bool, exporter: str) -> str:
    """What a server in a process of its own prints, and then what it has imported for tracing."""
    script = f"""
import asyncio, sys
from support.calls import create
from support.server import serving

async def main():
    async with serving({str(folder)!r}, otel={otel}) as server:
        await create(server.stubs)
    print("imported", [name for name in ("opentelemetry.sdk", "opentelemetry.trace") if name in sys.modules])

asyncio.run(main())
"""
    environment = {"PYTHONPATH": ":".join(sys.path), "OTEL_TRACES_EXPORTER": exporter}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE, env=environment
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    return output.decode()


async def test_a_server_that_does_not_trace_imports_nothing_of_it(tmp_path: Path) -> None:
    logged = await logged_by_a_process(tmp_path, otel=False, exporter="console")
    assert logged.endswith("imported []\n")


async def test_a_provider_of_the_servers_own(tmp_path: Path) -> None:
    told = await logged_by_a_process(tmp_path, otel=True, exporter="console")
    assert told.count('"name": "lavant.v1.RunService/CreateRun"') == 1
    assert '"service.name": "lavant"' in told
    assert told.endswith("imported ['opentelemetry.sdk', 'opentelemetry.trace']\n")
