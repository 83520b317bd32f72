"""The shipped NATS configuration: lavant gets all that it needs there, and nobody gets anything else."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from grpc import StatusCode, aio
from nats.aio.client import Client
from nats.errors import Error

from lavant.client import AsyncClient
from lavant.server.store.jetstream import Connection, Unanswered
from support.calls import create, until
from support.certificates import Authority
from support.command import run_command
from support.nats import NatsServer
from support.server import ServerProcess, connected, serving
from support.shipped_nats import ShippedCluster, shipped_cluster

FORBIDDEN = (
    "$JS.API.STREAM.DELETE.LAVANT_META",
    "$JS.API.STREAM.UPDATE.LAVANT_META",
    "$JS.API.STREAM.NAMES",
    "$JS.API.CONSUMER.CREATE.LAVANT_LOG_0",
    "$JS.API.STREAM.MSG.DELETE.LAVANT_LOG_0",
    "$JS.API.STREAM.SNAPSHOT.LAVANT_LOG_0",
    "$SYS.REQ.SERVER.PING",
    "other.subject",
)


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ShippedCluster]:
    """The servers with the shipped configuration."""
    with shipped_cluster(tmp_path_factory.mktemp("shipped")) as cluster:
        yield cluster


def settings(cluster: ShippedCluster) -> dict[str, Any]:
    """The settings of lavant for the servers."""
    return {
        "store": cluster.url,
        "nats_ca": cluster.ca,
        "nats_user": "lavant",
        "nats_password": cluster.password,
    }


@asynccontextmanager
async def logged_in(cluster: ShippedCluster) -> AsyncIterator[tuple[Client, asyncio.Queue[str]]]:
    """A client with lavant's password, and the refusals that it receives."""
    refusals = asyncio.Queue[str]()

    async def note(error: Exception) -> None:
        refusals.put_nowait(str(error).lower())

    client = Client()
    await client.connect(f"nats://127.0.0.1:{cluster.ports[0]}", error_cb=note, **cluster.access.options())
    try:
        yield client, refusals
    finally:
        await client.close()


async def test_permissions_are_enough_for_all_that_lavant_does(shipped: ShippedCluster, tmp_path: Path) -> None:
    """Two replicas create the store, publish, read, displace each other, list, watch, delete and rotate the key."""
    async with (
        serving(tmp_path / "a", **settings(shipped)) as one,
        serving(tmp_path / "b", **settings(shipped)) as other,
        AsyncClient(one.target) as writer,
        AsyncClient(other.target) as reader,
    ):
        async with writer.runs.start("agent", on_error="raise") as run:
            await run.text("it works")
            await run.flush()
            async with reader.runs.stream(run.id, consumer="ui") as stream:
                assert (await anext(stream)).type == "run_started"
                async with writer.runs.stream(run.id, consumer="ui", take_over=True) as taken:
                    assert (await anext(taken)).type == "run_started"
        assert (await reader.runs.wait(run.id)).state == "succeeded"
        assert [found.id async for found in reader.runs.list()] == [run.id]
        variables = {"LAVANT_NATS_CA": str(shipped.ca), "LAVANT_NATS_USER": "lavant"}
        variables["LAVANT_NATS_PASSWORD"] = shipped.password
        for command in ("init", "check", "rotate-key"):
            ended = await run_command("store", command, "--store", shipped.url, variables=variables)
            assert (ended.status, ended.err) == (0, ""), ended.out
        assert await reader.runs.stream(run.id).text() == "it works"
        await reader.runs.delete(run.id)
        assert [found.id async for found in reader.runs.list()] == []


@pytest.mark.parametrize("subject", FORBIDDEN)
async def test_lavant_has_no_other_permissions(shipped: ShippedCluster, subject: str) -> None:
    async with logged_in(shipped) as (client, refusals), asyncio.timeout(20):
        await client.publish(subject, b"{}", reply="_INBOX.lavant.test.1")
        await client.flush()
        assert "permissions violation for publish" in await refusals.get()


@pytest.mark.parametrize("subject", [">", "_INBOX.>", "$JS.>", "other.>"])
async def test_lavant_subscribes_to_its_own_subjects_alone(shipped: ShippedCluster, subject: str) -> None:
    async with logged_in(shipped) as (client, refusals), asyncio.timeout(20):
        await client.subscribe(subject)
        await client.flush()
        assert "permissions violation for subscription" in await refusals.get()


@pytest.mark.parametrize(
    "options",
    [{}, {"user": "lavant", "password": "wrong"}, {"user": "sys", "password": "sys"}],
    ids=["nobody", "wrong password", "another user"],
)
async def test_strangers_are_refused(shipped: ShippedCluster, options: dict[str, str]) -> None:
    client = Client()
    given: dict[str, Any] = {"tls": ssl.create_default_context(cafile=shipped.ca), **options}
    with pytest.raises(Error):
        await client.connect(f"nats://127.0.0.1:{shipped.ports[0]}", allow_reconnect=False, connect_timeout=5, **given)
    await client.close()


async def test_servers_of_another_ca_are_refused(shipped: ShippedCluster, tmp_path: Path) -> None:
    foreign = replace(shipped.access, ca=Authority(tmp_path).path)
    with pytest.raises(Unanswered, match="certificate verify failed"):
        await Connection.open(shipped.location(foreign))


async def test_password_is_not_sent_without_tls(nats: NatsServer, tmp_path: Path) -> None:
    """A server without TLS may be one that pretends to have none."""
    process = await run_command(
        *("store", "check", "--store", f"nats://{nats.address}"),
        variables={
            "LAVANT_NATS_CA": str(Authority(tmp_path).path),
            "LAVANT_NATS_USER": "lavant",
            "LAVANT_NATS_PASSWORD": "hunter2",
        },
    )
    assert process.status == 1
    assert "the server has no TLS, which --nats-ca demands" in process.err


async def test_password_comes_from_a_file_and_is_not_logged(shipped: ShippedCluster, tmp_path: Path) -> None:
    server = ServerProcess(tmp_path, store=shipped.url)
    flags = ("--nats-ca", str(shipped.ca), "--nats-user", "lavant", "--log-level", "debug")
    with (tmp_path / "log").open("wb") as log:
        await server.start(*flags, "--nats-password-file", str(shipped.secrets / "nats-password"), stderr=log)
        arguments = " ".join(psutil.Process(server.pid).cmdline())
        assert await server.terminate() == 0
    assert shipped.password not in arguments + (tmp_path / "log").read_text()


async def test_first_key_is_printed_by_a_second_server(shipped: ShippedCluster, tmp_path: Path) -> None:
    async with (
        serving(tmp_path / "a", **settings(shipped), auth=["keys"]) as one,
        serving(tmp_path / "b", **settings(shipped), auth=["keys"], init_key=True) as second,
        connected(one.target, bearer=second.app.first_key) as stubs,
    ):

        async def is_known() -> bool:
            try:
                await create(stubs, "of-the-first-key")
            except aio.AioRpcError as error:
                return error.code() != StatusCode.UNAUTHENTICATED
            return True

        await until(is_known)
