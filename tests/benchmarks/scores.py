"""Queries over many scores, in the index's file."""

import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from random import Random

import apsw

from benchmarks.kit.report import Aim, Table
from benchmarks.kit.rounds import Bench, Figures
from lavant.server.model import RunKey
from lavant.server.scores.index.database import ScoreIndex
from lavant.server.scores.index.intake import Found, Intake, Source, take_in
from lavant.server.scores.query.aggregation import Grouping, query_scores
from lavant.v1.event_pb2 import Event, ScoreRecorded
from lavant.v1.event_service_pb2 import EventBatch
from lavant.v1.score_service_pb2 import ScoreFilter

TENANT = "default"
BATCH = 2_000
TIME = "ms"
DAYS = 30
DAY_NS = 24 * 3600 * 1_000_000_000
NOW_NS = 1_700_000_000_000_000_000
NAMES = ("correctness", "completeness", "clearness", "success", "efficiency")
BY_NAME_AND_VERSION = Grouping(("name", "version"), (), DAY_NS)
PERCENTILES = (50.0, 90.0, 95.0, 99.0)
RAW = """SELECT time_ns / :day, series.name, series.version, count(*), avg(value), sum(value * value),
        sum(kind = 1), sum(kind = 3)
    FROM scores JOIN series ON series.id = scores.series
    WHERE series.rule_id = 'rule' AND time_ns >= :start GROUP BY 1, 2, 3"""


async def query(bench: Bench) -> list[Table]:
    """Compare with a GROUP BY over the single scores in bare apsw, which has no percentiles and no index by day."""
    number = bench.size(500_000, quick=20_000)
    path = bench.folder / "scores"
    index = await filled(path, number)
    bare = apsw.Connection(str(path))

    async def raw(_: int) -> Figures:
        return {TIME: grouped(bare) * 1e3}

    measured = await bench.interleaved({"lavant": partial(_timed, index), "GROUP BY": raw})
    bare.close()
    await index.close()
    title = f"30 days of {number:,} scores, by day, name and version"
    aims = [Aim(unit=TIME, beside="GROUP BY", at_most=0.5)]
    return [Table(name="scores", title=title, measured=measured, aims=aims)]


async def history(bench: Bench) -> list[Table]:
    """Compare the same 30 days with ten times as long a history around them, and alone."""
    number = bench.size(50_000, quick=5_000)
    short, long = (
        await filled(bench.folder / "short", number),
        await filled(bench.folder / "long", number * 10, DAYS * 10),
    )
    measured = await bench.interleaved({"lavant": partial(_timed, long), "no history": partial(_timed, short)})
    await short.close()
    await long.close()
    title = f"30 days of {number:,} scores in ten times as long a history"
    aims = [Aim(unit=TIME, beside="no history", at_most=1.5)]
    return [Table(name="scores-history", title=title, measured=measured, aims=aims)]


async def intake(bench: Bench) -> list[Table]:
    """Compare taking in scores with inserting their bytes, with as many indexes, in bare apsw."""
    number = bench.size(20_000, quick=4_000)
    batches = list(made(number, DAYS))
    events = [event for found in batches for event in EventBatch.FromString(found.events).events]

    async def ours(round_number: int) -> Figures:
        index = await ScoreIndex.open(bench.folder / f"scores{round_number}", "bench")
        began = time.perf_counter()
        for found in batches:
            await index.write(take_in, Intake(found=[found]))
        elapsed = time.perf_counter() - began
        await index.close()
        return {"scores/s": number / elapsed}

    async def theirs(round_number: int) -> Figures:
        return {"scores/s": number / inserted(bench.folder / f"bare{round_number}", events)}

    measured = await bench.interleaved({"lavant": ours, "INSERT": theirs})
    return [Table(name="scores-intake", title=f"taking in {number:,} scores", measured=measured)]


async def _timed(index: ScoreIndex, _: int) -> Figures:
    return {TIME: await asked(index) * 1e3}


async def filled(path: Path, number: int, days: int = DAYS) -> ScoreIndex:
    """An index of so many scores, the last of which are new."""
    index = await ScoreIndex.open(path, "bench")
    for found in made(number, days):
        await index.write(take_in, Intake(found=[found]))
    return index


def made(number: int, days: int) -> Iterator[Found]:
    """Scores of one rule over some days: five names, two versions, values of any kind."""
    random = Random(1)
    for first in range(0, number, BATCH):
        events = []
        for sequence in range(first + 1, first + BATCH + 1):
            told = ScoreRecorded(subject_run_id=f"run-{sequence // 5}", rule_id="rule", subject_name="weather")
            told.score.name = NAMES[sequence % 5]
            told.score.evaluator.name, told.score.evaluator.version = "judge", "12"[sequence > number // 2]
            told.score.number = random.betavariate(8, 2)
            told.score.explanation = "It names the city and the temperature, and does not say for which day."
            told.subject_time.FromNanoseconds(NOW_NS - days * DAY_NS + sequence * days * DAY_NS // (number + 1))
            event = Event(sequence=sequence, score_recorded=told, record_time=told.subject_time)
            events.append(event)
        source = Source(RunKey(TENANT, "lavant.rule.1"), 1)
        yield Found(TENANT, source, EventBatch(events=events).SerializeToString())


async def asked(index: ScoreIndex) -> float:
    """Ask for the last 30 days; returns the seconds it took."""
    wanted = ScoreFilter(rule_ids=["rule"])
    wanted.subject_ended_after.FromNanoseconds(NOW_NS - DAYS * DAY_NS)
    began = time.perf_counter()
    groups = await index.read(query_scores, TENANT, wanted, BY_NAME_AND_VERSION, PERCENTILES)
    elapsed = time.perf_counter() - began
    assert len(groups) >= DAYS * len(NAMES)
    return elapsed


def grouped(connection: apsw.Connection) -> float:
    """The same by a GROUP BY."""
    began = time.perf_counter()
    connection.execute(RAW, {"day": DAY_NS, "start": NOW_NS - DAYS * DAY_NS}).fetchall()
    return time.perf_counter() - began


def inserted(path: Path, events: Sequence[Event]) -> float:
    """Insert as many rows; returns the seconds it took."""
    connection = apsw.Connection(str(path))
    connection.execute("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;").fetchall()
    connection.execute(
        "CREATE TABLE scores(id INTEGER PRIMARY KEY, time, recorded, value, run, mark, record)"
    ).fetchall()
    for columns in ("time", "recorded", "value, time", "run, time", "mark"):
        connection.execute(f"CREATE INDEX {columns.partition(',')[0]}_index ON scores({columns})")
    random = Random(2)
    began = time.perf_counter()
    for first in range(0, len(events), BATCH):
        with connection:
            for event in events[first : first + BATCH]:
                told = event.score_recorded
                ns = told.subject_time.ToNanoseconds()
                values = (
                    ns,
                    ns,
                    told.score.number,
                    told.subject_run_id,
                    random.randbytes(16),
                    told.SerializeToString(),
                )
                connection.execute("INSERT INTO scores VALUES(NULL, ?, ?, ?, ?, ?, ?)", values)
    elapsed = time.perf_counter() - began
    connection.close()
    return elapsed
