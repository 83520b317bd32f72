"""Spans over OTLP, stored durably."""

import os
from collections.abc import Mapping
from typing import Any

from grpc import aio
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub

from benchmarks.kit.process import Process
from benchmarks.kit.report import Aim, Table
from benchmarks.kit.rounds import SERVER_CPU, Bench, Figures, Measure, Meter
from benchmarks.peers import lavant, phoenix
from benchmarks.peers.base import UnavailableError
from support.otlp import AGENT, CHAT, Values, request_of, span

BATCH = 500
IN_TRACE = 50
_HTTP: Values = {
    "http.request.method": "GET",
    "url.full": "https://example.org/forecast",
    "http.response.status_code": 200,
}


def requests(count: int) -> list[ExportTraceServiceRequest]:
    """Return requests of 500 spans each: new traces of an agent that asks a model and calls services by turns."""
    made = []
    for _ in range(count):
        spans = []
        for _ in range(BATCH // IN_TRACE):
            trace_id = os.urandom(16)
            root_id = os.urandom(8)  # Phoenix keeps one span per ID, whatever its trace
            spans.append(span(1, 0, AGENT, trace_id=trace_id, span_id=root_id))
            for number in range(2, IN_TRACE + 1):
                ids: dict[str, Any] = {"trace_id": trace_id, "span_id": os.urandom(8), "parent_span_id": root_id}
                spans.append(span(number, 1, CHAT if number % 3 else _HTTP, **ids))
        made.append(request_of(spans))
    return made


async def run(bench: Bench) -> list[Table]:
    """Measure one exporter that waits for each answer, beside Phoenix, whose spans count once they are stored."""
    count = bench.size(20, quick=10)
    folder = bench.subfolder("phoenix")

    def measure(server: Process, *, sends: int, is_phoenix: bool = False) -> Measure:
        total = 0

        async def once(_: int) -> Figures:
            nonlocal total
            sent = requests(sends)
            total += sends * BATCH
            async with aio.insecure_channel(server.address) as channel:
                stub = TraceServiceStub(channel)  # type: ignore[no-untyped-call]
                with Meter(server) as meter:
                    for request in sent:
                        await stub.Export(request)
                    if is_phoenix:
                        await phoenix.stored(folder, total)
            return meter.figures("spans", sends * BATCH)

        return once

    async with lavant.serve(bench.subfolder("lavant")) as server:
        systems: dict[str, Measure] = {"lavant": measure(server, sends=count)}
        if bench.products:
            try:
                if not bench.quick:
                    phoenix.install()
                async with phoenix.serve(folder) as other:
                    beside = measure(other, sends=1, is_phoenix=True)  # which takes many seconds for it
                    return [_table(await bench.interleaved({**systems, "phoenix": beside}))]
            except UnavailableError as error:
                print(f"\nphoenix is left out: {error}", flush=True)
        return [_table(await bench.interleaved(systems))]


def _table(measured: Mapping[str, list[Figures]]) -> Table:
    return Table(
        name="otlp",
        title=f"spans in requests of {BATCH}, {IN_TRACE} to a trace, stored durably",
        measured=measured,
        aims=[Aim(unit="spans/s", beside="phoenix", at_least=20), Aim(unit=SERVER_CPU, at_most=150)],
        recorded=[],
        baseline="phoenix",
    )
