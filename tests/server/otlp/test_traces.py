"""Traces as runs: in any order of their spans, once each, and nothing lost."""

import asyncio
import signal
from collections.abc import Iterable
from itertools import permutations
from pathlib import Path
from random import Random
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, TracesData

from lavant.client._reading.steps import StepProjection
from lavant.client.events import wrap
from lavant.server.model import RunKey
from lavant.server.store.restrictions import Restriction
from lavant.server.store.sqlite.engine import SQLiteEngine
from lavant.v1.event_pb2 import Event
from lavant.v1.run_pb2 import Run, RunState
from lavant.v1.run_service_pb2 import ListRunsRequest
from support.calls import append, create, get, listed, until
from support.clock import ManualClock
from support.events import run_started
from support.nats import fresh_location, without_streams
from support.otlp import AGENT, CHAT, TRACE_ID, a_trace, export, span, tree_of
from support.server import Server, ServerProcess, connected, serving

RUN = TRACE_ID.hex()


async def runs(server: Server) -> list[Run]:
    """All runs that a caller sees."""
    return list((await server.stubs.runs.ListRuns(ListRunsRequest())).runs)


def finished(events: Iterable[Event]) -> str:
    """The last digits of the steps that were finished, each as often as it was."""
    return "".join(sorted(event.step_finished.step_id[-1] for event in events if event.HasField("step_finished")))


async def test_a_trace_becomes_a_run(tmp_path: Path, store: dict[str, Any]) -> None:
    async with serving(tmp_path, **store) as server:
        response = await export(server.stubs.channel, a_trace())
        assert not response.HasField("partial_success")
        run = await get(server.stubs, RUN)
        events = await listed(server.stubs, RUN)
    assert (run.name, run.labels["source"], run.labels["service"]) == ("weather", "otlp", "forecasts")
    assert events[0].run_started.unordered_steps
    names = {key[-1]: (name, parent[-1:]) for key, (name, parent, _) in tree_of(events).items()}
    assert names == {
        "1": ("weather", ""),
        "2": ("span 2", "1"),
        "3": ("span 3", "2"),
        "4": ("search", "1"),
        "5": ("span 5", "4"),
        "6": ("span 6", "1"),
    }
    (call,) = [event.tool_call_started.call for event in events if event.HasField("tool_call_started")]
    assert (call.tool_call_id, call.tool_name) == ("call-1", "search")


async def test_a_span_is_kept_verbatim_with_its_resource(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        await export(server.stubs.channel, a_trace())
        events = await listed(server.stubs, RUN)
    kept = [TracesData.FromString(event.source.content) for event in events if event.source.content]
    found = [each.resource_spans[0].scope_spans[0].spans[0] for each in kept]
    assert sorted(found, key=lambda each: each.span_id) == a_trace()
    assert {each.resource_spans[0].resource.attributes[0].value.string_value for each in kept} == {"forecasts"}


async def test_all_orders_of_six_spans_result_in_the_same_tree(tmp_path: Path) -> None:
    trees = set()
    async with serving(tmp_path) as server:
        for number, order in enumerate(permutations(a_trace())):
            trace_id = (number + 1).to_bytes(16, "big")
            for each in order:
                each.trace_id = trace_id
            split = number % 6
            await export(server.stubs.channel, order[:split])
            await export(server.stubs.channel, order[split:])
            trees.add(tuple(sorted(tree_of(await listed(server.stubs, trace_id.hex())).items())))
    (tree,) = trees
    assert len(tree) == 6


async def test_200_spans_in_random_orders_result_in_the_same_tree(tmp_path: Path) -> None:
    random = Random(7)
    spans = [span(number, random.randrange(number), AGENT if number == 1 else None) for number in range(1, 201)]
    expected = {each.span_id.hex(): each.parent_span_id.hex() for each in spans}
    async with serving(tmp_path) as server:
        for number in range(1, 11):
            random.shuffle(spans)
            for each in spans:
                each.trace_id = number.to_bytes(16, "big")
            cut = random.randrange(200)
            await asyncio.gather(*(export(server.stubs.channel, part) for part in (spans[:cut], spans[cut:])))
            projection = StepProjection()
            for event in await listed(server.stubs, number.to_bytes(16, "big").hex()):
                projection.add(wrap(event))
            steps = [step for root in projection.roots() for step in root.walk()]
            assert {step.id: step.parent_id for step in steps} == expected
            assert {child.id: step.id for step in steps for child in step.children} == {
                child: parent for child, parent in expected.items() if parent
            }


async def test_a_span_that_is_sent_again_is_stored_once(tmp_path: Path, store: dict[str, Any]) -> None:
    async with serving(tmp_path, **store) as server:
        await export(server.stubs.channel, a_trace()[3:])
        before = await listed(server.stubs, RUN)
        await asyncio.gather(*(export(server.stubs.channel, a_trace()) for _ in range(5)))
    async with serving(tmp_path, **store) as server:  # which remembers nothing
        await export(server.stubs.channel, a_trace())
        events = await listed(server.stubs, RUN)
    assert events[: len(before)] == before
    assert sorted(event.step_finished.step_id[-1] for event in events if event.HasField("step_finished")) == list(
        "123456"
    )


async def test_spans_without_an_agent_wait_for_one(tmp_path: Path, store: dict[str, Any]) -> None:
    async with serving(tmp_path, **store) as server:
        await export(server.stubs.channel, [span(3, 2), span(5, 4)])
        assert await runs(server) == []
        await export(server.stubs.channel, [span(7, 2)])
    async with serving(tmp_path, **store) as server:
        await export(server.stubs.channel, [span(2, 1, CHAT)])
        tree = tree_of(await listed(server.stubs, RUN))
        assert {key[-1] for key in tree} == {"2", "3", "5", "7"}
        assert [run.run_id for run in await runs(server)] == [RUN]


async def test_a_trace_without_an_agent_is_deleted_after_the_idle_timeout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deleted: list[RunKey] = []
    delete_run = SQLiteEngine.delete_run

    async def delete(engine: SQLiteEngine, key: RunKey, within: Restriction | None = None) -> None:
        await delete_run(engine, key, within)
        deleted.append(key)

    monkeypatch.setattr(SQLiteEngine, "delete_run", delete)
    clock = ManualClock()
    async with serving(tmp_path, clock=clock, otlp_idle_timeout=60) as server:
        await export(server.stubs.channel, [span(3, 2)])
        clock.advance(59)
        await export(server.stubs.channel, [span(7, 2)])

        def is_deleted() -> bool:
            clock.advance(11)
            return bool(deleted)

        await until(is_deleted)
        await export(server.stubs.channel, [span(2, 1, CHAT)])
        assert {key[-1] for key in tree_of(await listed(server.stubs, RUN))} == {"2"}


async def test_the_run_ends_when_the_root_has_ended_and_nothing_comes(tmp_path: Path, store: dict[str, Any]) -> None:
    clock = ManualClock()
    async with serving(tmp_path, clock=clock, otlp_quiet_time=10, **store) as server:
        await export(server.stubs.channel, a_trace()[1:])
        clock.advance(60)
        assert (await get(server.stubs, RUN)).state == RunState.RUN_STATE_RUNNING
        await export(server.stubs.channel, a_trace()[:1])

        async def has_ended() -> bool:
            clock.advance(11)
            return (await get(server.stubs, RUN)).state == RunState.RUN_STATE_SUCCEEDED

        await until(has_ended)
        result = (await get(server.stubs, RUN)).result
    assert (result.usage.input_tokens, result.usage.requests, result.usage.model) == (6, 2, "gpt-5")
    assert result.duration.seconds == 99


async def test_the_run_of_a_failed_root_fails(tmp_path: Path) -> None:
    clock = ManualClock()
    async with serving(tmp_path, clock=clock) as server:
        await export(server.stubs.channel, [span(1, 0, AGENT, failed="no connection")])

        async def has_ended() -> bool:
            clock.advance(11)
            return (await get(server.stubs, RUN)).HasField("result")

        await until(has_ended)
        run = await get(server.stubs, RUN)
    assert (run.state, run.result.error.message) == (RunState.RUN_STATE_FAILED, "no connection")


async def test_a_trace_whose_root_does_not_end_is_abandoned(tmp_path: Path) -> None:
    clock = ManualClock()
    async with serving(tmp_path, clock=clock, otlp_idle_timeout=60) as server:
        await export(server.stubs.channel, a_trace()[1:])

        async def has_ended() -> bool:
            clock.advance(20)
            return (await get(server.stubs, RUN)).state == RunState.RUN_STATE_ABANDONED

        await until(has_ended)


async def test_what_comes_after_the_end_is_kept_in_a_linked_run(tmp_path: Path, store: dict[str, Any]) -> None:
    clock = ManualClock()
    async with serving(tmp_path, clock=clock, **store) as server:
        await export(server.stubs.channel, a_trace()[:3])

        async def has_ended() -> bool:
            clock.advance(11)
            return (await get(server.stubs, RUN)).HasField("result")

        await until(has_ended)
        await export(server.stubs.channel, a_trace())
    async with serving(tmp_path, **store) as server:
        await export(server.stubs.channel, a_trace())
        late = await get(server.stubs, f"{RUN}.2")
        assert late.parent_run_id == RUN
        assert {key[-1] for key in tree_of(await listed(server.stubs, f"{RUN}.2"))} == {"4", "5", "6"}
        assert len(await runs(server)) == 2


async def test_a_run_is_ended_by_a_server_that_remembers_nothing_of_it(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        await export(server.stubs.channel, a_trace())
    clock = ManualClock(time_ns=4_000_000_000_000_000_000)
    async with serving(tmp_path, clock=clock) as server:

        async def has_ended() -> bool:
            clock.advance(11)
            return (await get(server.stubs, RUN)).state == RunState.RUN_STATE_SUCCEEDED

        await until(has_ended)


async def test_a_span_without_an_end_is_shown_until_it_ends(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        await export(server.stubs.channel, [span(2, 1, CHAT, end_time_unix_nano=0)])
        await export(server.stubs.channel, [span(2, 1, CHAT, end_time_unix_nano=0)])
        (step,) = tree_of(await listed(server.stubs, RUN)).values()
        assert step[2] == ""
        await export(server.stubs.channel, [span(2, 1, CHAT)])
        events = await listed(server.stubs, RUN)
        (step,) = tree_of(events).values()
        assert step[2] == str(RunState.RUN_STATE_SUCCEEDED)
        assert sum(event.HasField("step_started") for event in events) == 1


async def test_a_run_of_somebody_else_is_not_touched(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        await create(server.stubs, RUN)
        await append(server.stubs, [run_started()], run_id=RUN)
        await export(server.stubs.channel, a_trace())
        assert len(await listed(server.stubs, RUN)) == 1
        assert len(tree_of(await listed(server.stubs, f"{RUN}.2"))) == 6


async def test_spans_of_one_trace_on_two_servers_come_together(tmp_path: Path, nats: Any) -> None:
    location = fresh_location([nats])
    random = Random(5)
    one = serving(tmp_path, store=str(location))
    async with without_streams(location), one as first, serving(tmp_path, store=str(location)) as second:
        for number in range(1, 21):
            spans = a_trace()
            for each in spans:
                each.trace_id = number.to_bytes(16, "big")
            random.shuffle(spans)
            channels = [server.stubs.channel for server in (first, second)]
            await asyncio.gather(*(export(channel, [each]) for each in spans for channel in channels))
            assert finished(await listed(first.stubs, number.to_bytes(16, "big").hex())) == "123456"


@pytest.mark.parametrize("place", ["before_commit", "after_commit"])
async def test_killed_in_an_export_nothing_is_lost_or_stored_twice(tmp_path: Path, place: str) -> None:
    process = ServerProcess(tmp_path)
    process.environment = {"LAVANT_FAILPOINT": f"{place}:7"}
    await process.start()
    kills = 0
    waiting: list[list[Span]] = []
    for number in range(1, 21):
        spans = a_trace()
        for each in spans:
            each.trace_id = number.to_bytes(16, "big")
        waiting += [spans[4:], spans[:4]]
    try:
        while waiting:
            async with connected(process.target) as stubs:
                results = []
                for first in range(0, len(waiting), 4):  # so that there are enough commits
                    exports = [export(stubs.channel, spans) for spans in waiting[first : first + 4]]
                    results += await asyncio.gather(*exports, return_exceptions=True)
            waiting = [spans for spans, result in zip(waiting, results, strict=True) if isinstance(result, Exception)]
            if waiting:
                kills += 1
                assert await process.died() == -signal.SIGKILL
                process.environment = {}
                await process.restart()
        assert kills == 1
        async with connected(process.target) as stubs:
            for number in range(1, 21):
                events: list[Event] = await listed(stubs, number.to_bytes(16, "big").hex())
                assert sorted(e.step_finished.step_id[-1] for e in events if e.HasField("step_finished")) == list(
                    "123456"
                )
    finally:
        await process.kill()
