"""`lavant store init` and `lavant store check`, and `lavant serve` on a store that they made."""

from pathlib import Path

from lavant.server.store.jetstream import Connection, Location
from support.calls import create, get
from support.command import run_command, without
from support.server import ServerProcess, connected, free_address


async def test_a_store_is_made_and_found_weak_with_one_server(location: Location) -> None:
    missing = await run_command("store", "check", "--store", str(location))
    assert missing.status == 1
    assert missing.out.count("is missing; run `lavant store init`") == 10
    for _ in range(2):
        made = await run_command("store", "init", variables={"LAVANT_STORE": str(location)})
        assert (made.status, made.out) == (0, f"the store {location} is ready\n")
    found = await run_command("store", "check", "--store", str(location))
    assert found.status == 1
    assert set(found.out.splitlines()) == {
        f"stream {stream} has num_replicas: 1: what was acknowledged may be lost with a disk; use a cluster of 3"
        for stream in (*location.log_streams, location.lease_stream, location.meta_stream)
    }


async def test_a_size_is_shared_out_among_the_logs(location: Location) -> None:
    await run_command("store", "init", "--store", str(location), variables={"LAVANT_NATS_MAX_BYTES": str(80 << 20)})
    connection = await Connection.open(location)
    info = await connection.api(f"STREAM.INFO.{location.log_streams[7]}")
    await connection.close()
    assert (info["config"]["max_bytes"], info["config"]["discard"]) == (10 << 20, "new")


async def test_refusals_are_one_line(location: Location) -> None:
    nobody = await run_command("store", "check", "--store", f"nats://user:secret@{free_address()}")
    assert (nobody.status, nobody.out) == (1, "")
    assert nobody.err.startswith("lavant: cannot reach the store nats://127.0.0.1:")
    assert "secret" not in nobody.err
    assert nobody.err.count("\n") == 1
    alone = await run_command("store", "init", "--store", str(location), variables={"LAVANT_NATS_REPLICAS": "0"})
    assert (alone.status, alone.out) == (2, "")
    file = await run_command("store", "init", "--store", "sqlite:///lavant.db")
    assert (file.status, file.out) == (2, "")
    assert "store: must be nats://HOST:PORT" in file.err


async def test_a_missing_package_is_named() -> None:
    without_nats = without("nats")
    ended = await run_command("store", "check", "--store", "nats://127.0.0.1:4222", program=without_nats)
    assert (ended.status, ended.err) == (1, "lavant: nats is missing: pip install 'lavant[server,nats]'\n")
    served = await run_command(
        "serve", "--listen", "127.0.0.1:0", "--store", "nats://127.0.0.1:4222", program=without_nats
    )
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
