"""Evaluations that are run again under the same id: killed, stopped, overtaken, ended, changed."""

import asyncio
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic_evals import Case, Dataset
from pydantic_evals.evaluators import EqualsExpected

from lavant.client import (
    AsyncClient,
    Evaluation,
    EvaluationChanged,
    ProducerFenced,
    RunSealed,
    RunState,
)
from lavant.client import Event as AnyEvent
from lavant.client._async.api.runs import AsyncRuns
from lavant.v1.event_pb2 import Event
from support.calls import append
from support.clock import ManualClock
from support.evaluated import Length, Stuck, cities, shout, stored_rows
from support.process import stop
from support.server import Server, ServerProcess

TESTS = Path(__file__).parents[2]


async def start_process(target: str, ran: Path) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "support.evaluation_process", target, str(ran)),
        cwd=TESTS,
        stdout=asyncio.subprocess.PIPE,
    )


async def rows_seen(client: AsyncClient, evaluation_id: str, count: int) -> None:
    """Wait until so many rows are stored."""
    async with client.evaluations.stream(evaluation_id, wait_for_run=True) as stream:
        async for event in stream:
            count -= event.type == "row_complete"
            if count == 0:
                return


async def test_a_killed_evaluation_continues(
    server_process: ServerProcess, process_client: AsyncClient, tmp_path: Path
) -> None:
    ran = tmp_path / "ran"
    process = await start_process(server_process.target, ran)
    await rows_seen(process_client, "killed", 300)
    process.kill()
    await process.wait()
    before = await process_client.evaluations.get("killed")
    assert before.state is RunState.RUNNING
    ran.rename(tmp_path / "first")
    process = await start_process(server_process.target, ran)
    assert await process.wait() == 0
    after = await process_client.evaluations.wait("killed")
    assert (after.rows_succeeded, after.rows_failed, len(after.rows)) == (600, 0, 600)
    rows = [(row.id, row.iteration) for row in after.rows]
    assert len(set(rows)) == 600
    assert rows[: len(before.rows)] == [(row.id, row.iteration) for row in before.rows]
    events = [event async for event in process_client.runs.events("killed")]
    taken_over = next(event.sequence for event in events if event.type == "run_state_changed")
    run_again = Counter(ran.read_text().split())
    # Also what was still on its way to the server when the process was killed.
    done_before = Counter(
        event.data.row_id for event in events if event.type == "row_finished" and event.sequence < taken_over
    )
    assert run_again == Counter({f"case-{number}": 3 for number in range(200)}) - done_before
    ids = [event.proto.event_id for event in events]
    assert len(set(ids)) == len(ids)


async def test_a_displaced_process_changes_nothing(
    server_process: ServerProcess, process_client: AsyncClient, tmp_path: Path
) -> None:
    first = await start_process(server_process.target, tmp_path / "first")
    await rows_seen(process_client, "killed", 100)
    stop(first.pid)
    second = await start_process(server_process.target, tmp_path / "second")
    assert await second.wait() == 0
    last = (await process_client.runs.get("killed")).last_sequence
    first.send_signal(signal.SIGCONT)
    said, _ = await first.communicate()
    assert first.returncode == 3, said
    assert b"another process took over evaluation killed" in said
    after = await process_client.evaluations.wait("killed")
    assert (await process_client.runs.get("killed")).last_sequence == last
    rows = await stored_rows(process_client, "killed")
    assert (len(rows), len(set(rows)), after.rows_succeeded) == (600, 600, 600)


async def test_of_two_processes_that_begin_at_once_one_goes_on(
    server_process: ServerProcess, process_client: AsyncClient, tmp_path: Path
) -> None:
    both = [await start_process(server_process.target, tmp_path / name) for name in ("a", "b")]
    said = [(await process.communicate())[0] for process in both]
    assert sorted(process.returncode or 0 for process in both) in ([0, 3], [0, 0]), said
    rows = await stored_rows(process_client, "killed")
    assert (len(rows), len(set(rows))) == (600, 600)


@pytest.fixture
async def stuck(client: AsyncClient) -> AsyncIterator[Stuck]:
    """An evaluation `e` of a, b and c that has stored the first, and waits at the second until it is overtaken."""
    task = Stuck("b")
    first = client.evaluations.run(cities("a", "b", "c"), task, evaluation_id="e", max_concurrency=1)
    work = asyncio.create_task(first)
    await task.waits.wait()
    yield task
    task.goes_on.set()
    with pytest.raises(ProducerFenced, match="another process took over evaluation e"):
        await work


async def test_the_last_to_come_goes_on(client: AsyncClient, stuck: Stuck) -> None:
    second = Stuck("c")
    data = cities("a", "b", "c")
    other = asyncio.create_task(client.evaluations.run(data, second, evaluation_id="e", max_concurrency=1))
    await second.waits.wait()
    stuck.goes_on.set()
    second.goes_on.set()
    done = await other
    assert (done.id, done.state, second.calls) == ("e", RunState.SUCCEEDED, ["b", "c"])
    assert await stored_rows(client, "e") == [("a", 1), ("b", 1), ("c", 1)]


async def test_two_who_begin_at_once_never_both_write(client: AsyncClient) -> None:
    tasks = [Stuck() for _ in range(8)]
    data = cities("a", "b", "c")
    ended = await asyncio.gather(
        *(client.evaluations.run(data, task, evaluation_id="e", max_concurrency=1) for task in tasks),
        return_exceptions=True,
    )
    assert {type(end) for end in ended} <= {Evaluation, ProducerFenced, RunSealed}
    assert any(isinstance(end, Evaluation) for end in ended)
    assert await stored_rows(client, "e") == [("a", 1), ("b", 1), ("c", 1)]
    ids = [event.proto.event_id async for event in client.runs.events("e")]
    assert len(set(ids)) == len(ids)


class Gated:
    """A task that is let through city by city; `calls` are the cities that it was asked for."""

    def __init__(self, *cities: str) -> None:
        self.calls: list[str] = []
        self.gates = {city: asyncio.Event() for city in cities}

    async def __call__(self, city: str) -> str:
        self.calls.append(city)
        if city in self.gates:
            await self.gates[city].wait()
        return city.upper()


class Overtaken(AsyncRuns):
    """Has the process that is being displaced write one more row after each read of its log."""

    first: Gated
    begun: "asyncio.Task[Evaluation]"
    reads = 0

    async def events(
        self, run_id: str, *, types: Iterable[str] = (), page_size: int | None = None
    ) -> AsyncIterator[AnyEvent]:
        async for event in super().events(run_id, types=types, page_size=page_size):
            yield event
        self.reads += 1
        gates = list(self.first.gates.values())[: self.reads]
        gates[-1].set()
        stored = asyncio.create_task(self._stored(run_id, 1 + len(gates)))
        await asyncio.wait({stored, self.begun}, return_when=asyncio.FIRST_COMPLETED)
        stored.cancel()

    async def _stored(self, run_id: str, count: int) -> None:
        async for event in self.stream(run_id, types=["row_finished"]):
            count -= event.type == "row_finished"
            if count == 0:
                return


async def test_a_row_that_is_stored_while_another_takes_over_is_run_once(client: AsyncClient) -> None:
    first, second = Gated("b", "c", "d"), Gated()
    data = cities("a", "b", "c", "d")
    begun = asyncio.create_task(client.evaluations.run(data, first, evaluation_id="e", max_concurrency=1))
    await rows_seen(client, "e", 1)
    runs = client.evaluations._runs = Overtaken(client._connection)
    runs.first, runs.begun = first, begun
    done = await client.evaluations.run(data, second, evaluation_id="e", max_concurrency=1)
    assert (runs.reads, second.calls, len(done.rows)) == (2, ["c", "d"], 4)
    assert await stored_rows(client, "e") == [("a", 1), ("b", 1), ("c", 1), ("d", 1)]
    with pytest.raises(ProducerFenced):
        await begun


class Outrun(AsyncRuns):
    """Lets somebody else take the evaluation over first, from where it was found as well."""

    other: "Callable[[], Awaitable[None]] | None" = None

    async def events(
        self, run_id: str, *, types: Iterable[str] = (), page_size: int | None = None
    ) -> AsyncIterator[AnyEvent]:
        async for event in super().events(run_id, types=types, page_size=page_size):
            yield event
        other, self.other = self.other, None
        if other is not None:
            await other()


async def test_of_two_who_found_it_as_it_was_the_first_one_goes_on(client: AsyncClient, stuck: Stuck) -> None:
    first, second = Stuck("b"), Stuck()
    data = cities("a", "b", "c")
    others: list[asyncio.Task[Evaluation]] = []
    kept = client.runs

    async def take_over() -> None:
        client.evaluations._runs = kept
        run = client.evaluations.run(data, first, evaluation_id="e", max_concurrency=1)
        others.append(asyncio.create_task(run))
        await first.waits.wait()

    outrun = client.evaluations._runs = Outrun(client._connection)
    outrun.other = take_over
    with pytest.raises(ProducerFenced, match="another process took over evaluation e"):
        await client.evaluations.run(data, second, evaluation_id="e", max_concurrency=1)
    assert second.calls == []
    first.goes_on.set()
    assert (await others[0]).state is RunState.SUCCEEDED
    assert await stored_rows(client, "e") == [("a", 1), ("b", 1), ("c", 1)]


async def test_one_that_succeeded_is_returned(client: AsyncClient) -> None:
    done = await client.evaluations.run(cities("a", "b"), shout, evaluation_id="e", iterations=2)
    task = Stuck()
    again = await client.evaluations.run(cities("a", "b"), task, evaluation_id="e", iterations=2, baseline=done.id)
    assert task.calls == []
    assert again == done.model_copy(update={"comparison": again.comparison})
    assert [one.verdict for one in again.comparison] == ["unchanged"]


async def test_an_abandoned_one_goes_on_in_another_life(timed_server: Server, clock: ManualClock) -> None:
    async with AsyncClient(timed_server.target) as client:
        first, second, third = Stuck("b"), Stuck(), Stuck()
        data = cities("a", "b", "c")
        work = client.evaluations.run(data, first, evaluation_id="e", max_concurrency=1, labels={"team": "x"})
        begun = asyncio.create_task(work)
        await first.waits.wait()
        assert (await client.runs.get("e")).producer_timeout == timedelta(seconds=300)
        clock.advance(302)
        assert (await client.runs.wait("e")).state is RunState.ABANDONED
        done = await client.evaluations.run(data, second, evaluation_id="e", labels={"team": "x"})
        assert (second.calls, done.id, done.state) == (["b", "c"], "e.2", RunState.SUCCEEDED)
        assert [row.id for row in done.rows] == ["a", "b", "c"]
        assert [row.id for row in (await client.evaluations.get("e.2")).rows] == ["a", "b", "c"]
        life = await client.runs.get("e.2")
        assert (life.parent_run_id, life.labels) == ("e", {"team": "x"})
        assert await client.evaluations.run(data, third, evaluation_id="e") == done
        assert third.calls == []
        first.goes_on.set()
        with pytest.raises(RunSealed, match="evaluation e was ended while it ran: run it again"):
            await begun
        assert await stored_rows(client, "e") == [("a", 1)]


async def test_a_long_task_is_no_silence(timed_server: Server, clock: ManualClock) -> None:
    async with AsyncClient(timed_server.target) as client:
        task = Stuck("a")
        work = asyncio.create_task(client.evaluations.run(cities("a"), task, evaluation_id="e", producer_timeout=1.0))
        await task.waits.wait()
        for _ in range(5):
            clock.advance(0.6)
            now = clock.time_ns()
            while (seen := (await client.runs.get("e")).producer_seen) is None or seen.timestamp() < now / 1e9 - 1e-3:
                pass
        task.goes_on.set()
        assert (await work).state is RunState.SUCCEEDED


async def cancelled_at(client: AsyncClient, city: str, *names: str) -> None:
    task = Stuck(city)
    work = asyncio.create_task(client.evaluations.run(cities(*names), task, evaluation_id="e", max_concurrency=1))
    await task.waits.wait()
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work


async def test_a_cancelled_one_goes_on_twice(client: AsyncClient, caplog: pytest.LogCaptureFixture) -> None:
    await cancelled_at(client, "b", "a", "b", "c")
    await cancelled_at(client, "c", "a", "b", "c")
    assert "evaluation e ended without success; it continues as e.2" in caplog.text
    task = Stuck()
    done = await client.evaluations.run(cities("a", "b", "c"), task, evaluation_id="e")
    assert (task.calls, done.id, len(done.rows), done.accuracy) == (["c"], "e.3", 3, 1.0)
    assert await stored_rows(client, "e.3") == [("a", 1), ("b", 1), ("c", 1)]


async def test_a_life_whose_copying_was_cut_off_misses_nothing(server: Server, client: AsyncClient) -> None:
    await cancelled_at(client, "b", "a", "b")
    start = await anext(client.runs.events("e"))
    await client.runs.create("cities", run_id="e.2", kind="evaluation", parent_run_id="e")
    began = Event(event_id="1", event_time=start.proto.event_time, run_started=start.proto.run_started)
    await append(server.stubs, [began], run_id="e.2")
    task = Stuck()
    done = await client.evaluations.run(cities("a", "b"), task, evaluation_id="e")
    assert (task.calls, done.id) == (["b"], "e.2")
    assert await stored_rows(client, "e.2") == [("a", 1), ("b", 1)]


async def test_rows_wait_for_a_server_that_is_gone(server_process: ServerProcess, process_client: AsyncClient) -> None:
    async def task(city: str) -> str:
        if city == "b":
            await server_process.kill()
            await server_process.start()
        return city.upper()

    done = await process_client.evaluations.run(cities("a", "b", "c"), task, evaluation_id="e", max_concurrency=1)
    assert done.state is RunState.SUCCEEDED
    assert await stored_rows(process_client, "e") == [("a", 1), ("b", 1), ("c", 1)]


def with_other(**changes: object) -> Callable[[], Dataset[Any, Any, Any]]:
    """The dataset with its first case changed."""

    def change() -> Dataset[Any, Any, Any]:
        changed = cities("a", "b", "c")
        for name, value in changes.items():
            setattr(changed.cases[0], name, value)
        return changed

    return change


def evaluated_by(*evaluators: Any) -> Callable[[], Dataset[Any, Any, Any]]:
    return lambda: Dataset(name="cities", cases=cities("a", "b", "c").cases, evaluators=evaluators)


@pytest.mark.parametrize(
    ("changed", "iterations", "said"),
    [
        (with_other(inputs="other"), 1, "row 'a' of evaluation e has different inputs"),
        (with_other(expected_output="other"), 1, "row 'a' of evaluation e has different expected output"),
        (with_other(name="z"), 1, "row 'a' of evaluation e is not in the dataset"),
        (lambda: cities("a", "b"), 1, "number of rows 3, not 2"),
        (lambda: cities("a", "b", "c"), 2, "number of iterations 1, not 2"),
        (evaluated_by(), 1, r"other evaluators, or other settings of them \(EqualsExpected\)"),
        (evaluated_by(EqualsExpected(), Length()), 1, r"settings of them \(Length\)"),
    ],
)
async def test_a_change_is_refused_and_ends_no_attempt(
    client: AsyncClient, stuck: Stuck, changed: Callable[[], Dataset[Any, Any, Any]], iterations: int, said: str
) -> None:
    before = (await client.runs.get("e")).last_sequence
    with pytest.raises(EvaluationChanged, match=f"{said}.*or choose another evaluation_id"):
        await client.evaluations.run(changed(), shout, evaluation_id="e", iterations=iterations)
    assert (await client.runs.get("e")).last_sequence == before
    assert (await client.evaluations.run(cities("a", "b", "c"), shout, evaluation_id="e")).accuracy == 1.0


async def test_other_settings_of_an_evaluator_are_a_change(client: AsyncClient) -> None:
    await client.evaluations.run(cities("a"), shout, evaluation_id="e", evaluators=[Length(long=3)])
    with pytest.raises(EvaluationChanged, match=r"\(Length\)"):
        await client.evaluations.run(cities("a"), shout, evaluation_id="e", evaluators=[Length(long=4)])


class Opaque:
    """Has no repr of its own: it is written with its address."""


async def test_what_has_no_repr_is_the_same_in_every_process(client: AsyncClient) -> None:
    def data() -> Dataset[Any, Any, Any]:
        return Dataset(name="opaque", cases=[Case(inputs=[Opaque()], expected_output=Opaque())])

    kept = [data(), data()]
    done = await client.evaluations.run(kept[0], str, evaluation_id="e")
    assert (await client.evaluations.run(kept[1], str, evaluation_id="e")).rows == done.rows


async def test_an_id_that_is_of_something_else(client: AsyncClient) -> None:
    await client.evaluations.run(cities("a"), shout, evaluation_id="e.2")
    await cancelled_at(client, "a", "a")
    with pytest.raises(EvaluationChanged, match=r"run e\.2 is not part of evaluation e"):
        await client.evaluations.run(cities("a"), shout, evaluation_id="e")
    async with client.runs.start("agent", run_id="agent"):
        with pytest.raises(EvaluationChanged, match="run agent is not part of evaluation agent"):
            await client.evaluations.run(cities("a"), shout, evaluation_id="agent")
