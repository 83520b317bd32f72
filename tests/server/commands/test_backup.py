"""`lavant backup` and `lavant restore`, beside servers in processes of their own."""

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from grpc import aio

from lavant.v1.event_pb2 import Event
from support.calls import append, create, get, listed
from support.command import LIMIT, Ended, run_command, without
from support.events import a_run_of, custom, run_started, text_delta
from support.server import ServerProcess, Stubs, connected
from support.streams import described, refused, streamed

# ruff: noqa: ASYNC240 - nothing else runs here while a file is read

SIZES = r"(\d+) runs?, (\d+) events?, (\d+) bytes in \d+\.\d\d s to"


def store_in(folder: Path) -> tuple[str, str]:
    return "--store", f"sqlite:///{folder}/lavant.db"


def refusal(ended: Ended) -> str:
    """What a command said that refused: one line."""
    assert (ended.status, ended.out) == (1, "")
    assert ended.err.startswith("lavant: ")
    assert ended.err.count("\n") == 1
    return ended.err


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return tmp_path / "saved.db"


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[Stubs]:
    """A server in a process of its own on the store in a folder, killed at the block's end."""
    process = ServerProcess(folder)
    await process.start()
    try:
        async with connected(process.target) as stubs:
            yield stubs
    finally:
        await process.kill()


class Producer:
    """Appends to a run, a batch after the other, until cancelled."""

    def __init__(self, stubs: Stubs, run_id: str) -> None:
        self.acknowledged = 0
        self._stubs = stubs
        self._run_id = run_id
        self._progress = asyncio.Condition()

    async def publish(self) -> None:
        await create(self._stubs, self._run_id)
        for batch in self._batches():
            await append(self._stubs, batch, first=self.acknowledged + 1, run_id=self._run_id)
            async with self._progress:
                self.acknowledged += len(batch)
                self._progress.notify_all()

    async def reach(self, events: int) -> None:
        async with asyncio.timeout(LIMIT), self._progress:
            await self._progress.wait_for(lambda: self.acknowledged >= events)

    def _batches(self) -> Iterator[list[Event]]:
        number = 1
        while True:
            batch = [custom(value_json=f'"{"x" * 2_000}"') if number > 1 else run_started()]
            batch += [custom() for _ in range(number % 3)]
            for event in batch:
                event.event_id = f"{self._run_id}-{number}"
                number += 1
            yield batch


async def test_a_backup_holds_all_that_was_acknowledged_before_it_began(tmp_path: Path, saved: Path) -> None:
    names = ("one", "two", "three")
    async with serving(tmp_path / "first") as stubs:
        producers = {name: Producer(stubs, name) for name in names}
        publishing = [asyncio.create_task(producer.publish()) for producer in producers.values()]
        for producer in producers.values():
            await producer.reach(300)
        before = {name: producer.acknowledged for name, producer in producers.items()}
        ended = await run_command("backup", *store_in(tmp_path / "first"), str(saved))
        after = {name: producer.acknowledged for name, producer in producers.items()}
        for name, producer in producers.items():
            await producer.reach(after[name] + 1)  # all of them write on
        for task in publishing:
            task.cancel()
        await asyncio.wait(publishing)
    assert ended.err == ""
    sizes = re.fullmatch(rf"backed up {SIZES} {saved}\n", ended.out)
    assert sizes is not None
    assert all(after[name] > before[name] for name in names)

    restored = await run_command("restore", *store_in(tmp_path / "second"), str(saved))
    assert re.fullmatch(rf"restored {SIZES} {tmp_path}/second/lavant\.db\n", restored.out), restored
    async with serving(tmp_path / "second") as stubs:
        logs = {name: await listed(stubs, name) for name in names}
        heads = {name: (await get(stubs, name)).last_sequence for name in names}
    for name, log in logs.items():
        assert before[name] <= len(log) <= after[name] + 3  # what was stored but not yet answered
        assert [event.sequence for event in log] == list(range(1, len(log) + 1))
        assert [event.event_id for event in log] == [f"{name}-{number}" for number in range(1, len(log) + 1)]
        assert heads[name] == len(log)
    assert [*map(int, sizes.groups())] == [3, sum(map(len, logs.values())), saved.stat().st_size]


async def test_tokens_of_an_earlier_epoch_are_refused(tmp_path: Path, saved: Path) -> None:
    events = a_run_of(6)
    async with serving(tmp_path) as stubs:
        await create(stubs)
        await append(stubs, events)
        token = (await streamed(stubs)).last.resume_token
        assert (await run_command("backup", *store_in(tmp_path), str(saved))).status == 0
    assert (await run_command("restore", *store_in(tmp_path), "--force", str(saved))).status == 0
    async with serving(tmp_path) as stubs:
        assert (await refused(stubs, resume_token=token)).reason == "STORE_EPOCH_CHANGED"
        frames = await streamed(stubs)
    assert [event.event_id for event in frames.events] == [event.event_id for event in events]


async def test_a_producer_gap_has_the_sequence_to_send_from(tmp_path: Path, saved: Path) -> None:
    events = a_run_of(9, finished=False)
    async with serving(tmp_path) as stubs:
        await create(stubs)
        await append(stubs, events[:5])
        assert (await run_command("backup", *store_in(tmp_path), str(saved))).status == 0
        await append(stubs, events[5:8], first=6)
    assert (await run_command("restore", *store_in(tmp_path), "--force", str(saved))).status == 0
    async with serving(tmp_path) as stubs:
        with pytest.raises(aio.AioRpcError) as caught:
            await append(stubs, events[8:], first=9)
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert described(caught.value).reason == "PRODUCER_GAP"
        assert (await append(stubs, events[3:5], first=4)).duplicate
        assert (await append(stubs, events[5:], first=6)).last_sequence == 9
        assert [event.event_id for event in await listed(stubs)] == [event.event_id for event in events]


async def test_a_killed_backup_leaves_no_backup(tmp_path: Path, saved: Path) -> None:
    async with serving(tmp_path / "first") as stubs:
        await create(stubs)
        await append(stubs, a_run_of(5, finished=False))
        killed = await run_command(
            "backup", *store_in(tmp_path / "first"), str(saved), variables={"LAVANT_FAILPOINT": "during_backup"}
        )
        assert killed.status == -signal.SIGKILL
        assert {file.name for file in tmp_path.iterdir()} == {"first", "saved.db.partial"}
        await append(stubs, [text_delta()], first=6)
        assert (await run_command("backup", *store_in(tmp_path / "first"), str(saved))).status == 0
    assert {file.name for file in tmp_path.iterdir()} == {"first", "saved.db"}
    restored = await run_command("restore", *store_in(tmp_path / "second"), str(saved))
    assert restored.out.startswith("restored 1 run, 6 events, ")


async def test_a_killed_restore_loses_neither_store(tmp_path: Path, saved: Path) -> None:
    async with serving(tmp_path / "first") as stubs:
        await create(stubs)
        await append(stubs, a_run_of(5))
        assert (await run_command("backup", *store_in(tmp_path / "first"), str(saved))).status == 0
    restore = ("restore", *store_in(tmp_path / "first"), str(saved))
    killed = await run_command(*restore, "--force", variables={"LAVANT_FAILPOINT": "during_restore"})
    assert killed.status == -signal.SIGKILL
    (aside,) = (tmp_path / "first").glob("lavant.db.old-*[0-9]Z")
    again = await run_command(*restore)
    assert re.fullmatch(rf"restored {SIZES} {tmp_path}/first/lavant\.db\n", again.out), again
    kept = await run_command("backup", "--store", f"sqlite:///{aside}", str(tmp_path / "kept.db"))
    assert kept.out.startswith("backed up 1 run, 5 events, ")


async def test_the_store_is_found_as_serve_finds_it(tmp_path: Path, saved: Path) -> None:
    async with serving(tmp_path) as stubs:
        await create(stubs)
    variables = {"LAVANT_STORE": f"sqlite:///{tmp_path}/lavant.db", "LAVANT_LISTEN": "0.0.0.0:7447"}
    assert (await run_command("backup", str(saved), variables=variables)).out.startswith("backed up 1 run, 0 events, ")
    wrong = await run_command("backup", "--store", "nats://127.0.0.1:4222", str(saved))
    assert (wrong.status, wrong.out) == (2, "")
    assert wrong.err.startswith("lavant: ")
    assert "must be sqlite:///PATH" in wrong.err


async def test_refusals_are_one_line(tmp_path: Path, saved: Path) -> None:
    backup = ("backup", *store_in(tmp_path), str(saved))
    restore = ("restore", *store_in(tmp_path), str(saved))
    assert "there is no store at" in refusal(await run_command(*backup))
    assert "there is no backup at" in refusal(await run_command(*restore))
    async with serving(tmp_path) as stubs:
        await create(stubs)
        assert (await run_command(*backup)).status == 0
        assert "--force" in refusal(await run_command(*backup))
        assert "--force" in refusal(await run_command(*restore))
        assert "is in use by another process" in refusal(await run_command(*restore, "--force"))
    os.truncate(saved, saved.stat().st_size // 2)
    assert "saved.db is damaged (" in refusal(await run_command(*restore, "--force"))
    nowhere = str(tmp_path / "nowhere" / "saved.db")
    assert "nowhere" in refusal(await run_command("backup", *store_in(tmp_path), nowhere))


async def test_a_missing_package_is_named(saved: Path) -> None:
    ended = await run_command("backup", str(saved), program=without("apsw"))
    assert (ended.status, ended.err) == (1, "lavant: apsw is missing: pip install 'lavant[server]'\n")


async def test_the_renamed_store_is_named(tmp_path: Path, saved: Path) -> None:
    async with serving(tmp_path) as stubs:
        await create(stubs)
        assert (await run_command("backup", *store_in(tmp_path), str(saved))).status == 0
    restored = await run_command("restore", *store_in(tmp_path), "--force", str(saved))
    named = re.search(r"; the store before is kept as (\S+)\n$", restored.out)
    assert named is not None
    assert Path(named[1]).is_file()
