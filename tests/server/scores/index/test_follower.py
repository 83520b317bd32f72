"""The index holds what the logs hold, each score once, whatever dies in between."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from lavant.server.clock import SystemClock
from lavant.server.model import RunKey
from lavant.server.scores.index.database import ScoreIndex
from lavant.server.scores.index.follower import Follower
from lavant.server.scores.index.intake import Intake, read_positions, take_in
from lavant.server.scores.query.aggregation import Grouping, query_scores
from lavant.server.scores.query.listing import list_scores
from lavant.server.scores.recorder import Recorder
from lavant.server.store.port import Engine
from lavant.v1.event_pb2 import Event, RowFinished, ScoreRecorded
from lavant.v1.run_pb2 import Run, RunKind
from lavant.v1.score_service_pb2 import ScoreFilter
from support.clock import ManualClock
from support.engines import refused
from support.events import batch_of, custom, identified, run_started
from support.scores import TENANT, Segment, recorded, score, values


async def listed(index: ScoreIndex) -> list[ScoreRecorded]:
    return (await index.read(list_scores, TENANT, ScoreFilter(), 1_000, None)).scores


async def counted(index: ScoreIndex) -> int:
    """How many scores the sums are made of."""
    return sum(group.count for group in await index.read(query_scores, TENANT, ScoreFilter(), Grouping(), ()))


async def found(follower: Follower, index: ScoreIndex) -> list[float]:
    """The values in the index, once it is up to date; lists and sums must agree."""
    await follower.caught_up(TENANT)
    found_values = sorted(values(await listed(index)))
    assert await counted(index) == len(found_values)
    return found_values


async def test_results_of_rules_are_found_while_they_are_written(
    engine: Engine, follower: Follower, index: ScoreIndex
) -> None:
    assert await found(follower, index) == []
    segment = await Segment(engine).begin()
    await segment.add(recorded(value=1.0))
    assert await found(follower, index) == [1.0]
    await segment.append([custom()])
    await segment.add(recorded(value=2.0), recorded(value=3.0))
    assert await found(follower, index) == [1.0, 2.0, 3.0]
    await segment.add(recorded(value=4.0))
    await segment.end()
    following = await Segment(engine, number=2).begin()
    await following.add(recorded(value=5.0))
    assert await found(follower, index) == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert await found(follower, index) == [1.0, 2.0, 3.0, 4.0, 5.0]


async def test_only_the_servers_own_results_count(engine: Engine, follower: Follower, index: ScoreIndex) -> None:
    looks_so = Run(kind=RunKind.RUN_KIND_EVALUATION, name="mine", labels={"lavant.results": "rule"})
    await engine.create_run(RunKey(TENANT, "mine"), looks_so)
    row = RowFinished(row_id="r", iteration=1, subject_run_id="run", scores=[score(value=9.0)])
    events = [run_started(), identified(Event(row_finished=row))]
    await engine.append(RunKey(TENANT, "mine"), batch_of(events, run_id="mine"))
    await Segment(engine, tenant="other").begin()
    assert await found(follower, index) == []


@pytest.mark.parametrize("forgotten", [False, True], ids=["kept", "forgotten"])
async def test_another_life_goes_on_where_the_last_one_was(
    engine: Engine, clock: ManualClock, path: Path, forgotten: bool
) -> None:
    segment = await Segment(engine).begin()
    recorder = Recorder(engine, clock)
    for life in range(3):
        index = await ScoreIndex.open(path, f"epoch {life if forgotten else 0}")
        async with Follower(engine, index, clock) as follower:
            assert await found(follower, index) == sorted([float(n) for n in range(life)] * 2)
            await segment.add(recorded(value=float(life)))
            given = ScoreRecorded(subject_run_id=segment.key.run_id, score=score(value=float(life)))
            await recorder.record(TENANT, f"score-{life}", given)
            assert len(await found(follower, index)) == 2 * life + 2
        await index.close()


async def test_what_was_stored_without_its_progress_being_known_is_taken_in_once(
    engine: Engine, clock: ManualClock, index: ScoreIndex
) -> None:
    segment = await Segment(engine).begin()
    await segment.add(*(recorded(value=float(n)) for n in range(50)))
    await segment.end()
    async with Follower(engine, index, clock) as follower:
        assert len(await found(follower, index)) == 50
    feeds, logs = await index.write(read_positions)
    await index.write(
        take_in,
        Intake(feeds=dict.fromkeys(feeds, 0), logs={key: logs[key]._replace(sequence=0, sealed=False) for key in logs}),
    )
    async with Follower(engine, index, clock) as follower:
        assert len(await found(follower, index)) == 50


async def test_followers_that_die_at_any_time_lose_and_repeat_nothing(
    engine: Engine, clock: ManualClock, path: Path
) -> None:
    segment = await Segment(engine).begin()
    recorder = Recorder(engine, clock)
    for number in range(30):
        await segment.add(recorded(value=float(number)))
        given = ScoreRecorded(subject_run_id=segment.key.run_id, score=score(value=float(number)))
        await recorder.record(TENANT, f"score-{number}", given)
        index = await ScoreIndex.open(path, "epoch")
        async with Follower(engine, index, clock):
            for _ in range(number):
                await asyncio.sleep(0)  # dies a little later each time
        await index.close()
    index = await ScoreIndex.open(path, "epoch")
    async with Follower(engine, index, clock) as follower:
        assert await found(follower, index) == sorted([float(n) for n in range(30)] * 2)
    await index.close()


async def test_many_read_at_once_what_was_recorded_before_they_asked(
    engine: Engine, clock: ManualClock, follower: Follower, index: ScoreIndex
) -> None:
    segment = await Segment(engine).begin()
    recorder = Recorder(engine, clock)

    async def record_and_look(number: int) -> None:
        given = ScoreRecorded(subject_run_id=segment.key.run_id, score=score(value=float(number)))
        await recorder.record(TENANT, f"score-{number}", given)
        await follower.caught_up(TENANT)
        assert float(number) in values(await listed(index))

    await asyncio.gather(*map(record_and_look, range(40)))
    assert len(await found(follower, index)) == 40


async def test_who_asks_while_somebody_is_looking_gets_a_look_of_their_own(
    engine: Engine, clock: ManualClock, index: ScoreIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    segment = await Segment(engine).begin()
    async with Follower(engine, index, clock) as follower:
        await follower.caught_up(TENANT)
        read, reading, go_on = engine.read, asyncio.Event(), asyncio.Event()

        async def late(*what: Any) -> Any:
            found = await read(*what)
            reading.set()
            await go_on.wait()
            return found

        await segment.add(recorded(value=1.0))
        monkeypatch.setattr(engine, "read", late)
        first = asyncio.ensure_future(follower.caught_up(TENANT))
        await reading.wait()
        monkeypatch.undo()
        await Recorder(engine, clock).record(
            TENANT, "s", ScoreRecorded(subject_run_id=segment.key.run_id, score=score(value=2.0))
        )
        second = asyncio.ensure_future(follower.caught_up(TENANT))
        await asyncio.sleep(0)
        go_on.set()
        await asyncio.gather(first, second)
        assert sorted(values(await listed(index))) == [1.0, 2.0]


async def test_a_deleted_result_keeps_its_scores(engine: Engine, follower: Follower, index: ScoreIndex) -> None:
    segment = await Segment(engine).begin()
    await segment.add(recorded())
    assert len(await found(follower, index)) == 1
    await segment.end()
    await engine.delete_run(segment.key)
    assert len(await found(follower, index)) == 1


async def test_sums_are_refused_until_all_was_read(engine: Engine, clock: ManualClock, index: ScoreIndex) -> None:
    await (await Segment(engine).begin()).add(recorded())
    await engine.close()
    async with Follower(engine, index, clock) as follower:
        with refused("UNAVAILABLE"):
            await follower.caught_up(TENANT)


async def test_recording_twice_at_once_records_once(
    engine: Engine, clock: ManualClock, follower: Follower, index: ScoreIndex
) -> None:
    segment = await Segment(engine).begin()
    given = ScoreRecorded(subject_run_id=segment.key.run_id, score=score())
    recorder, other = Recorder(engine, clock), Recorder(engine, SystemClock())
    answers = await asyncio.gather(*(one.record(TENANT, "s", given) for one in (recorder, other, recorder, other)))
    assert sorted(answers) == [False, True, True, True]
    assert await found(follower, index) == [1.0]


async def test_a_crash_before_the_score_was_written_is_healed_by_the_retry(
    engine: Engine, clock: ManualClock, follower: Follower, index: ScoreIndex
) -> None:
    segment = await Segment(engine).begin()
    run = Run(name="score", kind=RunKind.RUN_KIND_EVALUATION)
    await engine.create_run(RunKey(f"{TENANT}/scores", "s"), run)
    assert await found(follower, index) == []
    given = ScoreRecorded(subject_run_id=segment.key.run_id, score=score())
    assert not await Recorder(engine, clock).record(TENANT, "s", given)
    assert await found(follower, index) == [1.0]


async def test_a_change_that_arrives_while_the_end_of_a_log_is_read_does_no_harm(
    engine: Engine, follower: Follower, index: ScoreIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    segment = await Segment(engine).begin()
    await segment.add(recorded(value=1.0))
    read, ended = engine.read, asyncio.Event()

    async def read_late(*where: Any) -> Any:
        if not ended.is_set():
            ended.set()
            await segment.end()
        return await read(*where)

    monkeypatch.setattr(engine, "read", read_late)
    assert await found(follower, index) == [1.0]
    await (await Segment(engine, number=2).begin()).add(recorded(value=2.0))
    assert await found(follower, index) == [1.0, 2.0]
