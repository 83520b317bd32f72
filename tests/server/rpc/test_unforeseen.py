"""An exception that nobody foresaw: the caller gets a number, the log has the rest."""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from grpc import StatusCode, aio
from structlog.testing import capture_logs

from lavant.server.model import RunKey
from lavant.server.store.sqlite import SQLiteEngine
from lavant.v1.event_service_pb2 import AppendEventsRequest, PublishEventsRequest, StreamEventsRequest
from lavant.v1.run_pb2 import Run
from lavant.v1.run_service_pb2 import GetRunRequest, ListRunsRequest, WatchRunsRequest
from server.rpc.raw import METHODS, send
from support.calls import append, create, get, until
from support.clock import ManualClock
from support.events import batch_of, custom, run_started
from support.server import Server, ServerProcess, connected, serving
from support.status import Refusal, refused

PAYLOAD = '{"password":"payload-of-a-user"}'
REQUESTS = {
    "/lavant.v1.RunService/GetRun": GetRunRequest(run_id="run"),
    "/lavant.v1.RunService/ListRuns": ListRunsRequest(),
    "/lavant.v1.RunService/WatchRuns": WatchRunsRequest(),
    "/lavant.v1.EventService/StreamEvents": StreamEventsRequest(run_id="run", consumer_id="ui"),
    "/lavant.v1.EventService/AppendEvents": AppendEventsRequest(batch=batch_of([run_started(PAYLOAD)])),
    "/lavant.v1.EventService/PublishEvents": PublishEventsRequest(batches=[batch_of([run_started(PAYLOAD)])]),
}


class DeafEngine(SQLiteEngine):
    """Cannot list the producers that are silent."""

    async def abandon_silent_runs(self, silent_since_ns: int) -> Any:
        """Fail."""
        raise RuntimeError("secret")


class BrokenEngine(DeafEngine):
    """Fails at every turn, in a way that nobody foresaw."""

    async def find_run(self, key: RunKey) -> Run | None:
        """Fail."""
        raise RuntimeError("secret")

    async def list_runs(self, *_: Any, **__: Any) -> Any:
        """Fail."""
        raise KeyError("secret")

    async def list_changes(self, *_: Any, **__: Any) -> Any:
        """Fail."""
        raise OSError("secret")

    def append(self, *_: Any, **__: Any) -> Any:
        """Fail."""
        raise RuntimeError("secret")


@pytest.fixture
async def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    """A server with a broken engine."""
    monkeypatch.setattr("lavant.server.app.stores.SQLiteEngine", BrokenEngine)
    async with serving(tmp_path) as server:
        yield server


@pytest.mark.parametrize("path", REQUESTS)
async def test_the_caller_gets_an_incident_that_the_log_has(broken: Server, path: str) -> None:
    await create(broken.stubs)
    with capture_logs() as logs, pytest.raises(aio.AioRpcError) as caught:
        await send(broken.stubs, path, REQUESTS[path].SerializeToString())

    refusal = Refusal()
    refusal.read(caught.value)
    assert refusal.code == StatusCode.INTERNAL
    refusal.check_discretion()
    (entry,) = (entry for entry in logs if entry["event"] == "call_failed")
    assert re.fullmatch(r"[0-9a-f]{8}", entry["incident"])
    assert entry["incident"] in refusal.status.message
    assert "payload-of-a-user" not in str(logs)
    assert len(broken.app.calls) == 0


def test_all_kinds_of_methods_are_tried() -> None:
    kinds = {(METHODS[path].client_streaming, METHODS[path].server_streaming) for path in REQUESTS}
    assert kinds == {(method.client_streaming, method.server_streaming) for method in METHODS.values()}


async def test_logs_hold_no_payloads_and_no_tokens(tmp_path: Path) -> None:
    """A server that logs all it can, and is given good and bad calls."""
    process = ServerProcess(tmp_path)
    with (tmp_path / "log").open("wb") as log:
        await process.start("--log-level", "debug", stderr=log)
    async with connected(process.target) as stubs:
        await create(stubs)
        request = REQUESTS["/lavant.v1.EventService/AppendEvents"].SerializeToString()
        await send(stubs, "/lavant.v1.EventService/AppendEvents", request)
        opened = stubs.events.StreamEvents(StreamEventsRequest(run_id="run", consumer_id="ui"), timeout=20)
        frame: Any = await opened.read()
        opened.cancel()
        with refused("RESUME_TOKEN_INVALID"):
            bad = StreamEventsRequest(run_id="run", consumer_id="ui", resume_token=frame.resume_token[:-1])
            await stubs.events.StreamEvents(bad, timeout=20).read()
        with refused("INVALID_FIELD"):
            await send(stubs, "/lavant.v1.RunService/GetRun", PAYLOAD.encode())
    assert await process.terminate() == 0
    logged = (tmp_path / "log").read_text()
    assert "draining" in logged
    assert "payload-of-a-user" not in logged
    assert frame.resume_token[:-1] not in logged


async def test_a_failed_look_for_silent_producers_is_logged_and_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lavant.server.app.stores.SQLiteEngine", DeafEngine)
    clock = ManualClock()
    with capture_logs() as logs:
        async with serving(tmp_path, clock=clock):
            logs.clear()  # of the start
            for looks in (1, 2):
                clock.advance(1)
                await until(lambda looks=looks: len(logs) == looks)  # type: ignore[misc]
    assert [entry["event"] for entry in logs] == ["abandonment_failed"] * 2


@pytest.mark.parametrize("at", ["a write", "a read", "a wait"])
async def test_a_client_that_goes_away_is_no_incident(tmp_path: Path, at: str) -> None:
    async with serving(tmp_path) as server, connected(server.target) as client:
        await create(server.stubs)
        with capture_logs() as logs:
            if at == "a read":
                call: Any = client.events.PublishEvents()
            elif at == "a wait":
                call = client.runs.WatchRuns(WatchRunsRequest())
                await call.read()
            else:
                await append(server.stubs, [run_started()])
                for number in range(2, 20):
                    await append(server.stubs, [custom(value_json='"' + "x" * 500_000 + '"')], first=number)
                call = client.events.StreamEvents(StreamEventsRequest(run_id="run", consumer_id="ui"))
                await call.read()
            await until(lambda: len(server.app.calls) == 1)
            call.cancel()
            await server.app.calls.ended()
            await get(server.stubs)
    assert not [entry for entry in logs if entry["event"] == "call_failed"]
