"""`lavant store init` and `lavant store check`, and `lavant serve` on a store that they made."""

import asyncio
import sys
from pathlib import Path

from client.cli.conftest import COMMAND, LIMIT, Ended, environment
from lavant.server.store.jetstream import Connection, Location
from support.calls import create, get
from support.server import ServerProcess, connected, free_address


async def lavant(*arguments: str, program: tuple[str, ...] = COMMAND, **variables: str) -> Ended:
    process = await asyncio.create_subprocess_exec(
        *(*program, *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**environment("127.0.0.1:1"), **variables},
    )
    async with asyncio.timeout(LIMIT):
        out, err = await process.communicate()
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), err.decode())


async def test_a_store_is_made_and_found_weak_with_one_server(location: Location) -> None:
    missing = await lavant("store", "check", "--store", str(location))
    assert missing.status == 1
    assert missing.out.count("is missing; run `lavant store init`") == 10
    for _ in range(2):
        made = await lavant("store", "init", LAVANT_STORE=str(location))
        assert (made.status, made.out) == (0, f"the store {location} is ready\n")
    found = await lavant("store", "check", "--store", str(location))
    assert found.status == 1
    assert set(found.out.splitlines()) == {
        f"stream {stream} has num_replicas: 1: what was acknowledged may be lost with a disk; use a cluster of 3"
        for stream in (*location.log_streams, location.lease_stream, location.meta_stream)
    }


async def test_a_size_is_shared_out_among_the_logs(location: Location) -> None:
    await lavant("store", "init", "--store", str(location), LAVANT_NATS_MAX_BYTES=str(80 << 20))
    connection = await Connection.open(location.servers)
    info = await connection.api(f"STREAM.INFO.{location.log_streams[7]}")
    await connection.close()
    assert (info["config"]["max_bytes"], info["config"]["discard"]) == (10 << 20, "new")


async def test_refusals_are_one_line(location: Location) -> None:
    nobody = await lavant("store", "check", "--store", f"nats://user:secret@{free_address()}")
    assert (nobody.status, nobody.out) == (1, "")
    assert nobody.err.startswith("lavant: cannot reach the store nats://127.0.0.1:")
    assert "secret" not in nobody.err
    assert nobody.err.count("\n") == 1
    alone = await lavant("store", "init", "--store", str(location), LAVANT_NATS_REPLICAS="0")
    assert (alone.status, alone.out) == (2, "")
    file = await lavant("store", "init", "--store", "sqlite:///lavant.db")
    assert (file.status, file.out) == (2, "")
    assert "store: must be nats://HOST:PORT" in file.err


async def test_what_is_missing_is_named() -> None:
    program = "import sys; sys.modules['nats'] = None; from lavant.client.cli import main; main()"
    without_nats = (sys.executable, "-c", program)
    ended = await lavant("store", "check", "--store", "nats://127.0.0.1:4222", program=without_nats)
    assert (ended.status, ended.err) == (1, "lavant: nats is missing: pip install 'lavant[server,nats]'\n")
    served = await lavant("serve", "--listen", "127.0.0.1:0", "--store", "nats://127.0.0.1:4222", program=without_nats)
    assert served.status == 1
    assert served.err == "lavant: a store on NATS needs nats: pip install 'lavant[server,nats]'\n"


async def test_servers_in_processes_of_their_own_share_a_store(location: Location, tmp_path: Path) -> None:
    servers = [ServerProcess(tmp_path) for _ in range(2)]
    for server in servers:
        await server.start("--store", str(location))
    async with connected(servers[0].target) as here, connected(servers[1].target) as there:
        await create(here)
        assert (await get(there)).name == "weather"
    await servers[0].kill()
    assert await servers[1].terminate() == 0
