"""`lavant copy`, and a server on the copy."""

from pathlib import Path

from lavant.client import AsyncClient
from lavant.server.store.jetstream import Location
from support.command import run_command
from support.server import ServerProcess


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
    refused = await run_command("copy", source, str(location))
    assert (refused.status, "in use by another process" in refused.err) == (1, True)
    assert await old.terminate() == 0
    copied = await run_command("copy", source, str(location), "--keep-epoch")
    assert (copied.status, copied.out.startswith("copied 1 run, 6 events in ")) == (0, True)
    new = ServerProcess(tmp_path, store=str(location))
    await new.start()
    async with AsyncClient(new.target) as client:
        rest = client.runs.stream("run", consumer="ui", resume_token=token)
        assert [event.data.text async for event in rest if event.type == "text_delta"] == ["after"]
    await new.kill()


async def test_only_from_a_file_to_nats() -> None:
    refused = await run_command("copy", "sqlite:///a.db", "sqlite:///b.db")
    assert (refused.status, refused.out) == (2, "")
    assert "from sqlite:///PATH to nats://HOST:PORT" in refused.err
