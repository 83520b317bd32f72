"""Exports over gRPC and HTTP: what is taken, what is refused and how, and who may send."""

import gzip
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from google.protobuf import json_format
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from grpc import aio
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs
from opentelemetry.proto.metrics.v1.metrics_pb2 import Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from lavant.v1.event_pb2 import Role
from lavant.v1.run_pb2 import RunState
from lavant.v1.score_service_pb2 import ListScoresRequest
from support.calls import get, listed, until
from support.clock import ManualClock
from support.credentials import calling_with
from support.otlp import AGENT, BEGAN, CHAT, TRACE_ID, a_trace, attributes, export, request_of, span, tree_of
from support.server import Server, serving
from support.status import refused

RUN = TRACE_ID.hex()
PROTOBUF = {"content-type": "application/x-protobuf"}
JSON = {"content-type": "application/json"}


@asynccontextmanager
async def web(folder: Path, **settings: Any) -> AsyncIterator[tuple[Server, httpx.AsyncClient]]:
    """A server that takes exports over HTTP, and whoever sends them."""
    async with serving(folder, http="127.0.0.1:0", **settings) as server, httpx.AsyncClient(timeout=30) as client:
        client.base_url = httpx.URL(f"http://{server.app.http_address}")
        yield server, client


def as_json(request: ExportTraceServiceRequest) -> str:
    """Return the JSON of a request as OTLP has it: IDs in hexadecimal digits."""
    value = json_format.MessageToDict(request)
    for each in value["resourceSpans"][0]["scopeSpans"][0]["spans"]:
        for name, binary in (("traceId", TRACE_ID), ("spanId", None), ("parentSpanId", None)):
            if name in each:
                decoded = binary or json_format.ParseDict({"spanId": each[name]}, span(1).__class__()).span_id
                each[name] = decoded.hex()
    return json.dumps(value)


@pytest.mark.parametrize("form", ["protobuf", "gzip", "json"])
async def test_spans_are_taken_over_http(tmp_path: Path, form: str) -> None:
    request = request_of(a_trace())
    data = request.SerializeToString()
    async with web(tmp_path) as (server, client):
        if form == "json":
            response = await client.post("/v1/traces", content=as_json(request), headers=JSON)
            assert response.json() == {}
        else:
            packed, more = (gzip.compress(data), {"content-encoding": "gzip"}) if form == "gzip" else (data, {})
            response = await client.post("/v1/traces", content=packed, headers={**PROTOBUF, **more})
            assert ExportTraceServiceResponse.FromString(response.content) == ExportTraceServiceResponse()
        assert response.status_code == 200
        assert response.headers["content-type"] == (JSON if form == "json" else PROTOBUF)["content-type"]
        assert len(tree_of(await listed(server.stubs, RUN))) == 6


async def test_the_addresses_of_exporters_take_exports(tmp_path: Path) -> None:
    async with serving(tmp_path, otlp="127.0.0.1:0", otlp_http="127.0.0.1:0") as server:
        async with aio.insecure_channel(server.app.otlp_address) as channel:
            await export(channel, a_trace()[:3])
        async with httpx.AsyncClient(base_url=f"http://{server.app.otlp_http_address}") as client:
            data = request_of(a_trace()[3:]).SerializeToString()
            assert (await client.post("/v1/traces", content=data, headers=PROTOBUF)).status_code == 200
        assert len(tree_of(await listed(server.stubs, RUN))) == 6


@pytest.mark.parametrize(
    ("method", "path", "headers", "content", "status"),
    [
        ("GET", "/v1/traces", PROTOBUF, b"", 405),
        ("POST", "/v1/other", PROTOBUF, b"", 404),
        ("POST", "/v1/traces", {"content-type": "text/plain"}, b"", 415),
        ("POST", "/v1/traces", PROTOBUF, b"\xff\xff", 400),
        ("POST", "/v1/traces", JSON, b'{"resourceSpans": 7}', 400),
        ("POST", "/v1/traces", JSON, b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": 5}]}]}]}', 400),
        ("POST", "/v1/traces", JSON, b"[" * 100_000, 400),
        ("POST", "/v1/traces", JSON, b"[]", 400),
        ("POST", "/v1/traces", {**PROTOBUF, "content-encoding": "gzip"}, b"no gzip", 400),
        ("POST", "/v1/traces", {**PROTOBUF, "content-encoding": "gzip"}, gzip.compress(b"x" * 99, mtime=0)[:-9], 400),
        ("POST", "/v1/traces", {**PROTOBUF, "content-encoding": "gzip"}, gzip.compress(bytes(64 << 20), mtime=0), 413),
        ("POST", "/v1/traces", {**PROTOBUF, "content-encoding": "br"}, b"", 415),
        ("POST", "/v1/traces", PROTOBUF, bytes(17 << 20), 413),
        ("POST", "/v1/traces", {**PROTOBUF, "origin": "https://elsewhere.example"}, b"", 403),
        ("POST", "/v1/traces", {**PROTOBUF, "host": "elsewhere.example"}, b"", 403),
    ],
)
async def test_a_bad_request_is_refused(
    tmp_path: Path, method: str, path: str, headers: dict[str, str], content: bytes, status: int
) -> None:
    async with web(tmp_path) as (_, client):
        response = await client.request(method, path, content=content, headers=headers)
        assert response.status_code == status
        assert "Traceback" not in response.text
        if response.headers["content-type"] == "application/x-protobuf":
            assert Status.FromString(response.content).message
        else:
            assert response.json()


async def test_single_spans_are_refused_with_reasons_and_the_others_kept(tmp_path: Path) -> None:
    huge = span(7, 1, {"gen_ai.input.messages": "x" * (2 << 20)})
    bad = [
        huge,
        span(8, 1, trace_id=b"short"),
        span(9, 1, trace_id=bytes(16)),
        span(10, 1, span_id=bytes(8)),
        span(11, 1, parent_span_id=b"12"),
    ]
    async with serving(tmp_path) as server:
        response = await export(server.stubs.channel, [*a_trace(), *bad])
        assert response.partial_success.rejected_spans == 5
        message = response.partial_success.error_message
        assert "2,097" in message.replace(" ", "")
        assert all(name in message for name in ("trace_id", "span_id", "parent_span_id"))
        assert len(tree_of(await listed(server.stubs, RUN))) == 6


async def test_hostile_spans_are_kept(tmp_path: Path) -> None:
    spans = [
        span(1, 0, AGENT, start_time_unix_nano=0, end_time_unix_nano=1),
        span(2, 1, CHAT, start_time_unix_nano=2**63, end_time_unix_nano=2**64 - 1),
        span(3, 1, {f"key-{n}": "v" for n in range(10_000)}),
        span(4, 4, {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.call.id": "\x00" * 500}),
        span(5, 6),
        span(6, 5, {"gen_ai.usage.input_tokens": 2**63 - 1, **{k: v for k, v in CHAT.items() if "usage" not in k}}),
        span(7, 1, {"gen_ai.input.messages": "[" * 10_000}, name="<script>alert(1)</script>\x1b[31m"),
        span(8, 1, {"gen_ai.operation.name": "execute_tool"}, end_time_unix_nano=BEGAN),
    ]
    async with serving(tmp_path) as server:
        response = await export(server.stubs.channel, spans)
        assert not response.HasField("partial_success")
        events = await listed(server.stubs, RUN)
        assert {key[-1] for key in tree_of(events)} == set("12345678")
        await export(server.stubs.channel, spans)
        assert await listed(server.stubs, RUN) == events


async def test_a_chain_of_3000_spans_is_kept(tmp_path: Path) -> None:
    spans = [span(number, number - 1, AGENT if number == 1 else None) for number in range(1, 3_001)]
    async with serving(tmp_path) as server:
        await export(server.stubs.channel, spans)
        tree = tree_of(await listed(server.stubs, RUN))
    assert {key: parent for key, (_, parent, _) in tree.items()} == {
        each.span_id.hex(): each.parent_span_id.hex() for each in spans
    }


async def test_metrics_are_refused_with_a_word(tmp_path: Path) -> None:
    gauge = Metric(name="m", gauge=Gauge(data_points=[NumberDataPoint(as_int=1)]))
    metrics = ExportMetricsServiceRequest(
        resource_metrics=[ResourceMetrics(scope_metrics=[ScopeMetrics(metrics=[gauge])])]
    )
    async with web(tmp_path) as (_, client):
        response = await client.post("/v1/metrics", content=metrics.SerializeToString(), headers=PROTOBUF)
        answer = ExportMetricsServiceResponse.FromString(response.content).partial_success
    assert (response.status_code, answer.rejected_data_points) == (200, 1)
    assert "keeps no metrics" in answer.error_message


async def test_a_quota_is_reported_so_that_exporters_send_again(tmp_path: Path) -> None:
    clock = ManualClock()
    async with serving(tmp_path, clock=clock, tenant_events_per_second=10) as server:
        await export(server.stubs.channel, a_trace())
        with refused("QUOTA_EXCEEDED") as refusal:
            await export(server.stubs.channel, [span(7, 1)])
        assert refusal.code == grpc.StatusCode.RESOURCE_EXHAUSTED
        clock.advance(refusal.detail(RetryInfo).retry_delay.ToNanoseconds() / 1e9)
        await export(server.stubs.channel, [span(7, 1)])
        assert len(tree_of(await listed(server.stubs, RUN))) == 7


async def test_a_trace_belongs_to_the_tenant_of_its_credential(tmp_path: Path) -> None:
    async with serving(tmp_path, auth=["keys"], init_key=True) as server:
        for tenant in ("acme", "other"):
            async with calling_with(server.stubs, server.target, "runs:publish", "runs:read", tenant=tenant) as stubs:
                await export(stubs.channel, a_trace())
                await export(stubs.channel, a_trace())
                assert len(tree_of(await listed(stubs, RUN))) == 6
        async with calling_with(server.stubs, server.target, "runs:read") as stubs:
            with refused("RUN_NOT_FOUND"):
                await get(stubs, RUN)


def records(*given: tuple[str, dict[str, str | int]], **fields: Any) -> ExportLogsServiceRequest:
    """A request with log records of these names and attributes, a second after each other."""
    made = [
        LogRecord(
            time_unix_nano=BEGAN + number * 1_000_000_000,
            body=AnyValue(string_value=name),
            attributes=attributes({"event.name": name, **values}),
            **fields,
        )
        for number, (name, values) in enumerate(given)
    ]
    return ExportLogsServiceRequest(resource_logs=[ResourceLogs(scope_logs=[ScopeLogs(log_records=made)])])


TURN: dict[str, str | int] = {"session.id": "session-1", "prompt.id": "prompt-1"}
CLAUDE = records(
    ("claude_code.user_prompt", {**TURN, "prompt": "Is it cold?"}),
    ("claude_code.api_request", {**TURN, "model": "claude", "input_tokens": 5, "output_tokens": 7, "duration_ms": 900}),
    ("claude_code.tool_result", {**TURN, "tool_name": "Bash", "success": "true", "duration_ms": 50}),
)


async def test_log_records_of_a_session_become_a_run(tmp_path: Path) -> None:
    clock = ManualClock()
    async with web(tmp_path, clock=clock, otlp_idle_timeout=60) as (server, client):
        for _ in range(2):
            response = await client.post("/v1/logs", content=CLAUDE.SerializeToString(), headers=PROTOBUF)
            assert ExportLogsServiceResponse.FromString(response.content) == ExportLogsServiceResponse()
        (run,) = (await client.get("/api/v1/runs")).json()["runs"]
        assert run["conversation_id"] == "session-1"
        events = await listed(server.stubs, run["run_id"])
        (message,) = [event.message_finished for event in events if event.HasField("message_finished")]
        assert (message.role, message.parts[0].text) == (Role.ROLE_USER, "Is it cold?")
        (call,) = [event.tool_call_finished for event in events if event.HasField("tool_call_finished")]
        assert call.tool_name == "Bash"
        assert all(event.source.type == "log" for event in events if event.HasField("step_finished"))

        async def has_ended() -> bool:
            clock.advance(31)
            return (await get(server.stubs, run["run_id"])).state == RunState.RUN_STATE_SUCCEEDED

        await until(has_ended)
        assert (await get(server.stubs, run["run_id"])).result.usage.output_tokens == 7


async def test_log_records_of_a_trace_show_what_is_said_while_it_runs(tmp_path: Path) -> None:
    said = records(
        ("gen_ai.user.message", {"gen_ai.system": "openai", "content": "Is it cold?"}),
        trace_id=TRACE_ID,
        span_id=span(2).span_id,
    )
    async with web(tmp_path) as (server, client):
        response = await client.post("/v1/logs", content=said.SerializeToString(), headers=PROTOBUF)
        assert response.status_code == 200
        await export(server.stubs.channel, a_trace())
        events = await listed(server.stubs, RUN)
    (step,) = [event.step_started for event in events if event.step_started.name == "gen_ai.user.message"]
    assert step.parent_step_id == span(2).span_id.hex()
    assert len(tree_of(events)) == 7


async def test_log_records_of_no_agent_are_refused_with_a_word(tmp_path: Path) -> None:
    plain = records(("started", {}), ("stopped", {}))
    async with web(tmp_path) as (_, client):
        response = await client.post("/v1/logs", content=plain.SerializeToString(), headers=PROTOBUF)
        answer = ExportLogsServiceResponse.FromString(response.content).partial_success
    assert answer.rejected_log_records == 2
    assert "(2 times)" in answer.error_message


async def test_evaluation_results_are_recorded_as_scores(tmp_path: Path) -> None:
    result = Span.Event(
        name="gen_ai.evaluation.result",
        time_unix_nano=BEGAN,
        attributes=[
            *attributes({"gen_ai.evaluation.name": "correctness", "gen_ai.evaluation.explanation": "as measured"}),
            KeyValue(key="gen_ai.evaluation.score.value", value=AnyValue(double_value=0.75)),
        ],
    )
    async with serving(tmp_path, auth=["keys"], init_key=True) as server:
        for scopes in (("runs:publish", "runs:read"), ("runs:publish", "scores:write", "scores:read")):
            async with calling_with(server.stubs, server.target, *scopes) as stubs:
                for _ in range(2):
                    await export(stubs.channel, [span(1, 0, AGENT, events=[result])])
        async with calling_with(server.stubs, server.target, "scores:read") as stubs:
            (score,) = (await stubs.scores.ListScores(ListScoresRequest())).scores
    assert (score.score.name, score.score.number, score.subject_run_id) == ("correctness", 0.75, RUN)
