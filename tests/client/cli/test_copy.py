"""`lavant copy`, and the server that goes on with what it made."""

import asyncio
from pathlib import Path

from client.cli.conftest import COMMAND, LIMIT, environment
from lavant.client import AsyncClient
from lavant.server.store.jetstream import Location
from support.server import ServerProcess


async def lavant(*arguments: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *(*COMMAND, *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment("127.0.0.1:1"),
    )
    async with asyncio.timeout(LIMIT):
        out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_a_reader_goes_on_from_the_file_to_nats(location: Location, tmp_path: Path) -> None:
    old = ServerProcess(tmp_path)
    await old.start()
    async with AsyncClient(old.target) as client:
        async with client.runs.start("agent", run_id="run") as run:
            await run.text("before ")
            await run.text("after")
        stream = client.runs.stream("run", consumer="ui")
        async for event in stream:
            if event.type == "text_delta":
                break
        token = stream.resume_token
        await stream.aclose()
    source = f"sqlite:///{tmp_path}/lavant.db"
    status, _, said = await lavant("copy", source, str(location))
    assert (status, "in use by another process" in said) == (1, True)
    assert await old.terminate() == 0
    status, said, _ = await lavant("copy", source, str(location), "--keep-epoch")
    assert (status, said.startswith("copied 1 run, 6 events in ")) == (0, True)
    new = ServerProcess(tmp_path, store=str(location))
    await new.start()
    async with AsyncClient(new.target) as client:
        rest = client.runs.stream("run", consumer="ui", resume_token=token)
        assert [event.data.text async for event in rest if event.type == "text_delta"] == ["after"]
    await new.kill()


async def test_only_from_a_file_to_nats() -> None:
    status, out, said = await lavant("copy", "sqlite:///a.db", "sqlite:///b.db")
    assert (status, out) == (2, "")
    assert "from sqlite:///PATH to nats://HOST:PORT" in said
