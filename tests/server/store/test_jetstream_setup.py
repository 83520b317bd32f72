"""How a store begins on NATS servers, and which it refuses."""

from pathlib import Path

import pytest

from lavant.server.app.startup import running
from lavant.server.clock import SystemClock
from lavant.server.errors import StartError
from lavant.server.store.jetstream import (
    Connection,
    JetStreamEngine,
    StoreUnusable,
)
from support.engines import KEY, created, stored
from support.events import (
    a_run_of,
    batch_of,
)
from support.nats import NatsServer, examined, fresh_location
from support.server import free_address, settings_for


async def test_a_store_that_cannot_hold_what_it_promises_is_refused(own_nats: NatsServer, tmp_path: Path) -> None:
    location = fresh_location([own_nats])
    connection = await Connection.open(location)
    await connection.api(
        f"STREAM.CREATE.{location.log_streams[3]}",
        name=location.log_streams[3],
        subjects=[location.log_subjects(3)],
        storage="memory",
        discard="new",
        allow_direct=True,
        allow_msg_ttl=True,
    )
    await connection.close()
    with pytest.raises(StoreUnusable, match="in memory"):
        await JetStreamEngine.open(location, SystemClock())
    findings = "\n".join(await examined(location))
    assert "_LOG_3 keeps its messages in memory" in findings
    assert "_META is missing" in findings


async def test_an_asynchronous_stream_is_refused(own_nats: NatsServer) -> None:
    location = fresh_location([own_nats])
    connection = await Connection.open(location)
    await connection.api(
        f"STREAM.CREATE.{location.log_streams[0]}",
        name=location.log_streams[0],
        subjects=[location.log_subjects(0)],
        discard="new",
        allow_direct=True,
        allow_msg_ttl=True,
        persist_mode="async",
    )
    await connection.close()
    with pytest.raises(StoreUnusable, match="persist_mode"):
        await JetStreamEngine.open(location, SystemClock())


async def test_a_server_with_the_usual_limit_of_messages_is_refused(tmp_path: Path) -> None:
    server = NatsServer(tmp_path / "small", int(free_address().rpartition(":")[2]), max_payload="1MB")
    server.start()
    try:
        server.wait()
        with pytest.raises(StoreUnusable, match="max_payload: 8MB"):
            await JetStreamEngine.open(fresh_location([server]), SystemClock())
    finally:
        server.kill()


@pytest.mark.parametrize(
    ("store", "said"),
    [
        (f"nats://{free_address()}", "cannot reach the store nats://127.0.0.1:"),
        ("nats://127.0.0.1:4222/UPPER", "must be nats://HOST:PORT"),
        ("nats://127.0.0.1:port", "must name servers as HOST:PORT"),
    ],
    ids=["nobody", "name", "port"],
)
async def test_a_server_says_why_it_cannot_start(tmp_path: Path, store: str, said: str) -> None:
    with pytest.raises(StartError, match=said):
        async with running(settings_for(tmp_path, store=store)):
            pass


async def test_a_run_is_whole_after_a_restart_of_everything(own_nats: NatsServer) -> None:
    location = fresh_location([own_nats])
    first = await JetStreamEngine.open(location, SystemClock())
    await created(first)
    await first.append(KEY, batch_of(a_run_of(9)))
    identity = first.identity
    await first.close()
    own_nats.kill()
    own_nats.start()
    own_nats.wait()
    second = await JetStreamEngine.open(location, SystemClock())
    assert second.identity == identity
    assert len(await stored(second)) == 9
    await second.close()
