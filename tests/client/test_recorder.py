"""Work that begins and ends in callbacks, as events."""

import asyncio
from typing import Any

import pytest

from lavant.client import AsyncClient, RunState, Usage
from lavant.client.integrations._recorder import Recorder
from lavant.v1 import run_pb2
from lavant.v1.event_pb2 import Event, StepFinished, StepStarted, ToolCallOutcome


class ListLog:
    """Keeps what is queued."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def enqueue(self, event: Event) -> None:
        self.events.append(event)

    def payloads(self, kind: str) -> list[Any]:
        return [getattr(event, kind) for event in self.events if event.WhichOneof("payload") == kind]

    def tree(self) -> dict[str, str]:
        """Each step's name, and the name of the one around it."""
        started: list[StepStarted] = self.payloads("step_started")
        names = {step.step_id: step.name for step in started}
        return {step.name: names.get(step.parent_step_id, step.parent_step_id) for step in started}

    def ended(self) -> list[tuple[str, str]]:
        """The steps that ended, in that order, and how."""
        names = {step.step_id: step.name for step in self.payloads("step_started")}
        finished: list[StepFinished] = self.payloads("step_finished")
        return [
            (names[step.step_id], run_pb2.RunState.Name(step.state).removeprefix("RUN_STATE_")) for step in finished
        ]


@pytest.fixture
def log() -> ListLog:
    return ListLog()


def test_steps_nest_as_their_keys_say(log: ListLog) -> None:
    recorder = Recorder(log, "outer")
    recorder.begin_step(1, "agent", "agent", input="hi")
    recorder.begin_step(2, "model", "model_request", parent=1)
    recorder.begin_tool(3, "search", {"q": 1}, call_id="c", parent=2)
    recorder.begin_step(4, "lost", parent="unknown")
    assert log.tree() == {"agent": "outer", "model": "agent", "search": "model", "lost": "outer"}
    assert recorder.step_of("unknown") == recorder.step_of(None) == "outer"


def test_an_event_belongs_to_the_step_it_is_in(log: ListLog) -> None:
    recorder = Recorder(log)
    recorder.begin_step(1, "agent")
    recorder.begin_tool(2, "search", {}, call_id="c", parent=1)
    recorder.message(1, "m").finish()
    recorder.end(2, output="x")
    agent, tool = recorder.step_of(1), log.payloads("step_started")[1].step_id
    assert [(event.WhichOneof("payload"), event.step_id) for event in log.events] == [
        ("step_started", ""),
        ("step_started", agent),
        ("tool_call_started", tool),
        ("message_started", agent),
        ("message_finished", agent),
        ("tool_call_finished", tool),
        ("step_finished", agent),
    ]


def test_work_ends_after_all_that_was_begun_in_it(log: ListLog) -> None:
    recorder = Recorder(log)
    for key in range(3):
        recorder.begin_step(key, f"step {key}", parent=key - 1)
    recorder.end(0, output="x")
    assert log.ended() == [("step 2", "FAILED"), ("step 1", "FAILED"), ("step 0", "SUCCEEDED")]
    assert "not reported" in log.payloads("step_finished")[0].error.message


def test_an_error_ends_what_is_within_in_the_same_way(log: ListLog) -> None:
    recorder = Recorder(log)
    recorder.begin_step(1, "agent")
    recorder.begin_tool(2, "search", {}, call_id="c", parent=1)
    recorder.end(1, error=asyncio.CancelledError())
    assert log.ended() == [("search", "CANCELLED"), ("agent", "CANCELLED")]
    (finished,) = log.payloads("tool_call_finished")
    assert finished.outcome == ToolCallOutcome.TOOL_CALL_OUTCOME_FAILED


def test_parallel_work_ends_in_any_order(log: ListLog) -> None:
    recorder = Recorder(log)
    for key in ("a", "b", "c"):
        recorder.begin_tool(key, key, {}, call_id=key)
    recorder.end("b", output=1)
    recorder.end("a", error=ValueError("x"))
    recorder.end("c", output=3, outcome=ToolCallOutcome.TOOL_CALL_OUTCOME_DENIED)
    assert log.ended() == [("b", "SUCCEEDED"), ("a", "FAILED"), ("c", "SUCCEEDED")]
    assert [(data.tool_call_id, data.outcome) for data in log.payloads("tool_call_finished")] == [
        ("b", ToolCallOutcome.TOOL_CALL_OUTCOME_SUCCEEDED),
        ("a", ToolCallOutcome.TOOL_CALL_OUTCOME_FAILED),
        ("c", ToolCallOutcome.TOOL_CALL_OUTCOME_DENIED),
    ]


def test_an_end_without_a_beginning_is_ignored(log: ListLog) -> None:
    recorder = Recorder(log)
    recorder.end("unknown", error=ValueError())
    recorder.begin_step("a", "a")
    recorder.end("a")
    recorder.end("a", error=ValueError())
    assert log.ended() == [("a", "SUCCEEDED")]


def test_a_key_that_begins_again_ends_what_it_stood_for(log: ListLog) -> None:
    recorder = Recorder(log)
    recorder.begin_step("a", "first")
    recorder.begin_step("b", "within", parent="a")
    recorder.begin_step("a", "second", parent="a")
    assert log.ended() == [("within", "FAILED"), ("first", "FAILED")]
    assert log.tree()["second"] == ""


def test_end_all_ends_each_once(log: ListLog) -> None:
    recorder = Recorder(log)
    recorder.begin_step(1, "agent")
    recorder.begin_tool(2, "search", {}, call_id="c", parent=1)
    recorder.begin_step(3, "other")
    recorder.end_all(asyncio.CancelledError())
    recorder.end_all()
    assert log.ended() == [("search", "CANCELLED"), ("agent", "CANCELLED"), ("other", "CANCELLED")]


def test_deep_nesting_ends_from_the_innermost(log: ListLog) -> None:
    recorder = Recorder(log)
    for key in range(3_000):
        recorder.begin_step(key, str(key), parent=key - 1)
    recorder.end(0)
    assert log.ended()[:2] == [("2999", "FAILED"), ("2998", "FAILED")]
    assert log.ended()[-1] == ("0", "SUCCEEDED")


def test_the_steps_of_tools_have_their_arguments_and_results(log: ListLog) -> None:
    recorder = Recorder(log)
    recorder.begin_tool(1, "search", '{"q": 1}', call_id="c")
    recorder.end(1, output=["x"])
    (started,), (finished,) = log.payloads("step_started"), log.payloads("step_finished")
    assert (started.input_json, finished.output_json) == ('{"q": 1}', '["x"]')


async def test_a_server_takes_all_that_it_publishes(client: AsyncClient) -> None:
    async with client.runs.start("agent") as run:
        recorder = Recorder(run)
        recorder.begin_step("agent", "agent", "agent", input={"q": float("nan")})
        recorder.begin_step("request", "model", "model_request", parent="agent")
        message = recorder.message("request", "model")
        message.reasoning("hm \ud800")
        message.text("long " * 100_000)
        for name in ("search", "fail", "cut"):
            message.tool_arguments(f"call {name}", name, '{"n": ')
            message.tool_call(f"call {name}", name, "{malformed")
        message.finish("tool_calls", Usage(requests=1))
        recorder.end("request", usage=Usage(requests=1))
        for name in ("search", "fail", "cut"):
            recorder.begin_tool(name, name, {"n": "x" * 1_000_000}, call_id=f"call {name}", parent="agent")
        recorder.end("fail", error=ValueError("\ud800"))
        recorder.end("search", output=["x" * 1_000_000])
        recorder.end("agent", output=object())
    stored = await client.runs.get(run.id)
    assert stored.state is RunState.SUCCEEDED
    assert (await client.runs.stream(run.id).text()).endswith("long ")
    types = [event.type async for event in client.runs.events(run.id, page_size=1_000)]
    assert types.count("step_started") == types.count("step_finished") == 5
    assert types.count("tool_call_started") == types.count("tool_call_finished") == 3
