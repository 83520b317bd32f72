"""Work that begins and ends in callbacks, as events."""

import asyncio
import gc
import weakref
from typing import Any

import pytest

from lavant.client import AsyncClient, RunState, Usage
from lavant.client.integrations.recording.steps import StepRecorder
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
    recorder = StepRecorder(log, "outer")
    recorder.start(1, "agent", "agent", input="hi")
    recorder.start(2, "model", "model_request", parent=1)
    recorder.start_tool(3, "search", {"q": 1}, call_id="c", parent=2)
    recorder.start(4, "lost", parent="unknown")
    assert log.tree() == {"agent": "outer", "model": "agent", "search": "model", "lost": "outer"}
    assert recorder.step_id("unknown") == recorder.step_id(None) == "outer"


def test_an_event_belongs_to_the_step_it_is_in(log: ListLog) -> None:
    recorder = StepRecorder(log)
    recorder.start(1, "agent")
    recorder.start_tool(2, "search", {}, call_id="c", parent=1)
    recorder.message(1, "m").finish()
    recorder.finish(2, output="x")
    agent, tool = recorder.step_id(1), log.payloads("step_started")[1].step_id
    assert [(event.WhichOneof("payload"), event.step_id) for event in log.events] == [
        ("step_started", ""),
        ("step_started", agent),
        ("tool_call_started", tool),
        ("message_started", agent),
        ("message_finished", agent),
        ("tool_call_finished", tool),
        ("step_finished", agent),
    ]


def test_step_finishes_after_all_that_was_started_in_it(log: ListLog) -> None:
    recorder = StepRecorder(log)
    for key in range(3):
        recorder.start(key, f"step {key}", parent=key - 1)
    recorder.finish(0, output="x")
    assert log.ended() == [("step 2", "FAILED"), ("step 1", "FAILED"), ("step 0", "SUCCEEDED")]
    assert "not reported" in log.payloads("step_finished")[0].error.message


def test_an_error_ends_what_is_within_in_the_same_way(log: ListLog) -> None:
    recorder = StepRecorder(log)
    recorder.start(1, "agent")
    recorder.start_tool(2, "search", {}, call_id="c", parent=1)
    recorder.finish(1, error=asyncio.CancelledError())
    assert log.ended() == [("search", "CANCELLED"), ("agent", "CANCELLED")]
    (finished,) = log.payloads("tool_call_finished")
    assert finished.outcome == ToolCallOutcome.TOOL_CALL_OUTCOME_FAILED


def test_parallel_work_ends_in_any_order(log: ListLog) -> None:
    recorder = StepRecorder(log)
    for key in ("a", "b", "c"):
        recorder.start_tool(key, key, {}, call_id=key)
    recorder.finish("b", output=1)
    recorder.finish("a", error=ValueError("x"))
    recorder.finish("c", output=3, outcome=ToolCallOutcome.TOOL_CALL_OUTCOME_DENIED)
    assert log.ended() == [("b", "SUCCEEDED"), ("a", "FAILED"), ("c", "SUCCEEDED")]
    assert [(data.tool_call_id, data.outcome) for data in log.payloads("tool_call_finished")] == [
        ("b", ToolCallOutcome.TOOL_CALL_OUTCOME_SUCCEEDED),
        ("a", ToolCallOutcome.TOOL_CALL_OUTCOME_FAILED),
        ("c", ToolCallOutcome.TOOL_CALL_OUTCOME_DENIED),
    ]


def test_end_of_an_unknown_key_is_ignored(log: ListLog) -> None:
    recorder = StepRecorder(log)
    recorder.finish("unknown", error=ValueError())
    recorder.start("a", "a")
    recorder.finish("a")
    recorder.finish("a", error=ValueError())
    assert log.ended() == [("a", "SUCCEEDED")]


def test_key_that_is_started_again_finishes_its_first_step(log: ListLog) -> None:
    recorder = StepRecorder(log)
    recorder.start("a", "first")
    recorder.start("b", "within", parent="a")
    recorder.start("a", "second", parent="a")
    assert log.ended() == [("within", "FAILED"), ("first", "FAILED")]
    assert log.tree()["second"] == ""


def test_end_all_ends_each_once(log: ListLog) -> None:
    recorder = StepRecorder(log)
    recorder.start(1, "agent")
    recorder.start_tool(2, "search", {}, call_id="c", parent=1)
    recorder.start(3, "other")
    recorder.finish_all(asyncio.CancelledError())
    recorder.finish_all()
    assert log.ended() == [("search", "CANCELLED"), ("agent", "CANCELLED"), ("other", "CANCELLED")]


def test_deep_nesting_ends_from_the_innermost(log: ListLog) -> None:
    recorder = StepRecorder(log)
    for key in range(3_000):
        recorder.start(key, str(key), parent=key - 1)
    recorder.finish(0)
    assert log.ended()[:2] == [("2999", "FAILED"), ("2998", "FAILED")]
    assert log.ended()[-1] == ("0", "SUCCEEDED")


def test_the_steps_of_tools_have_their_arguments_and_results(log: ListLog) -> None:
    recorder = StepRecorder(log)
    recorder.start_tool(1, "search", '{"q": 1}', call_id="c")
    recorder.finish(1, output=["x"])
    (started,), (finished,) = log.payloads("step_started"), log.payloads("step_finished")
    assert (started.input_json, finished.output_json) == ('{"q": 1}', '["x"]')


async def test_server_accepts_all_events_of_a_recorder(client: AsyncClient) -> None:
    async with client.runs.start("agent") as run:
        recorder = StepRecorder(run)
        recorder.start("agent", "agent", "agent", input={"q": float("nan")})
        recorder.start("request", "model", "model_request", parent="agent")
        message = recorder.message("request", "model")
        message.add("reasoning", "hm \ud800")
        message.add("text", "long " * 100_000)
        for name in ("search", "fail", "cut"):
            message.add_arguments(f"call {name}", name, '{"n": ')
            message.set_call(f"call {name}", name, "{malformed")
        message.finish("tool_calls", Usage(requests=1))
        recorder.finish("request", usage=Usage(requests=1))
        for name in ("search", "fail", "cut"):
            recorder.start_tool(name, name, {"n": "x" * 1_000_000}, call_id=f"call {name}", parent="agent")
        recorder.finish("fail", error=ValueError("\ud800"))
        recorder.finish("search", output=["x" * 1_000_000])
        recorder.finish("agent", output=object())
    stored = await client.runs.get(run.id)
    assert stored.state is RunState.SUCCEEDED
    assert (await client.runs.stream(run.id).text()).endswith("long ")
    types = [event.type async for event in client.runs.events(run.id, page_size=1_000)]
    assert types.count("step_started") == types.count("step_finished") == 5
    assert types.count("tool_call_started") == types.count("tool_call_finished") == 3


def test_open_step_does_not_hold_its_input(log: ListLog) -> None:
    class Value:
        pass

    value = Value()
    is_alive = weakref.ref(value)
    recorder = StepRecorder(log)
    recorder.start(1, "agent", input=value)
    recorder.start_tool(2, "search", value, call_id="c", parent=1)
    del value
    gc.collect()
    assert is_alive() is None
