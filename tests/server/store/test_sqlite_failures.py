"""The SQLite engine when it cannot write: no room, a broken disk, the death of the process."""

import asyncio
import os
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event as ThreadEvent

import pytest

from lavant.server.model import RunKey
from lavant.server.store.port import Notice
from lavant.server.store.sqlite import SQLiteEngine
from lavant.v1.error_pb2 import ProducerGap
from lavant.v1.run_pb2 import Run, RunSettings
from support.clock import ManualClock
from support.engines import KEY, created, refused, started, stored, watch_changes_of
from support.events import a_run_of, batch_of, custom, noise, run_started, text_delta

OTHER, THIRD = RunKey("acme", "other"), RunKey("acme", "third")
LARGE = noise(100_000)
LARGER = noise(400_000)


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Let every write beyond a size fail with EFBIG, as a broken disk would with EIO."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_full_store_goes_on_reading_and_recovers_when_there_is_room(tmp_path: Path, clock: ManualClock) -> None:
    engine = await SQLiteEngine.open(tmp_path / "lavant.db", clock, max_bytes=500_000)
    await started(engine)
    await created(engine, OTHER)
    await engine.append(OTHER, batch_of([*a_run_of(3)[:2], text_delta(LARGE), text_delta(LARGE)]))
    await engine.append(OTHER, batch_of([a_run_of(4)[-1]], first=5))
    number = 3
    with refused("QUOTA_EXCEEDED"):
        while True:
            await engine.append(KEY, batch_of([text_delta(LARGE)], first=number))
            number += 1
    assert number > 3
    assert (await engine.get_run(KEY)).last_sequence == number - 1
    assert len(await stored(engine)) == number - 1
    await engine.delete_run(OTHER)
    await engine._decisions.finish()
    assert (await engine.append(KEY, batch_of([text_delta(LARGE)], first=number))).last_sequence == number
    await engine.close()


async def test_what_stands_on_a_failed_commit_fails_with_it(
    tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = await SQLiteEngine.open(tmp_path / "lavant.db", clock, max_bytes=200_000)
    await started(engine)
    writer, gate = engine._commits._writer, ThreadEvent()
    commit = writer._commit
    monkeypatch.setattr(writer, "_commit", lambda group: gate.wait(20) and commit(group))
    heard: list[Notice] = []
    await watch_changes_of(engine, KEY, heard.append)
    too_large = [engine.append(KEY, batch_of([text_delta(LARGER)], first=number)) for number in range(3, 7)]
    creating = [
        engine.append(THIRD, batch_of([run_started()], create=RunSettings(name="third"))),
        engine.append(THIRD, batch_of([custom()], first=2)),
    ]
    late_creation = asyncio.ensure_future(engine.create_run(OTHER, Run(name="other")))
    await asyncio.sleep(0)
    small = engine.append(KEY, batch_of([text_delta()], first=7))
    repeated = engine.append(KEY, batch_of([text_delta(LARGER)], first=6))
    gate.set()
    for doomed in (*too_large, *creating, small, repeated):
        with refused("QUOTA_EXCEEDED"):
            await doomed
    with refused("QUOTA_EXCEEDED"):
        await late_creation
    assert heard == []
    with refused("PRODUCER_GAP") as caught:
        await engine.append(KEY, batch_of([text_delta()], first=7))
    assert caught.value.detail == ProducerGap(expected_producer_sequence=3)
    with refused("RUN_NOT_FOUND"):
        await engine.get_run(OTHER)
    assert await engine.find_run(THIRD) is None
    assert (await engine.append(KEY, batch_of([text_delta()], first=3))).last_sequence == 3
    await created(engine, OTHER)
    await engine.close()


async def test_a_broken_disk_ends_the_process_before_any_answer(tmp_path: Path, clock: ManualClock) -> None:
    fatal: list[str] = []
    engine = await SQLiteEngine.open(tmp_path / "lavant.db", clock, on_fatal=fatal.append)
    await started(engine)
    with files_of_at_most(200_000), refused("UNAVAILABLE"):
        await engine.append(KEY, batch_of([text_delta(noise(300_000))], first=3))
    assert len(fatal) == 1
    assert "IOError" in fatal[0]
    with refused("UNAVAILABLE"):
        await engine.append(KEY, batch_of([text_delta()], first=3))
    assert len(fatal) == 1
    await engine.close()
    again = await SQLiteEngine.open(tmp_path / "lavant.db", clock)
    assert len(await stored(again)) == 2
    await again.close()


_PRODUCER = """
import asyncio, sys
from lavant.server.clock import SystemClock
from lavant.server.store.sqlite import SQLiteEngine
from support.engines import KEY, started, watch_changes_of
from support.events import batch_of, noise, text_delta

async def main():
    engine = await SQLiteEngine.open(sys.argv[1], SystemClock())
    await started(engine)
    for number in range(3, 1000):
        await engine.append(KEY, batch_of([text_delta()], first=number))
        print(number, flush=True)

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("failpoint", "stored_beyond_receipts"), [("before_commit:10", 0), ("after_commit:10", 1)], ids=str
)
async def test_every_acknowledged_event_survives_the_death_of_the_process(
    tmp_path: Path, clock: ManualClock, failpoint: str, stored_beyond_receipts: int
) -> None:
    path = tmp_path / "lavant.db"
    environment = os.environ | {"LAVANT_FAILPOINT": failpoint, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _PRODUCER, str(path), env=environment, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    assert process.returncode == -signal.SIGKILL
    acknowledged = int(output.split()[-1])
    engine = await SQLiteEngine.open(path, clock)
    assert len(await stored(engine)) == acknowledged + stored_beyond_receipts
    await engine.append(KEY, batch_of([text_delta()], first=acknowledged + stored_beyond_receipts + 1))
    await engine.close()
