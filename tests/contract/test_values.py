"""Values in events: durations, times and numbers, each broken once, with the path that the error names."""

import math
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from lavant.contract import events as event_rules
from lavant.contract.events import LogContent
from lavant.contract.values import Violation
from lavant.v1.event_pb2 import (
    Event,
    InputRequested,
    MessageFinished,
    ProgressReported,
    RowFinished,
    Score,
    StepFinished,
    ToolCallFinished,
    ToolCallOutcome,
)
from lavant.v1.run_pb2 import EvaluationSummary, RunFinished, RunState, TokenUsage
from support.calls import append, create, get, listed
from support.engines import bare
from support.events import identified, message_started, run_started, step_started, tool_call_started
from support.server import Server
from support.status import refused as refused_call

SUCCEEDED = RunState.RUN_STATE_SUCCEEDED
LONGEST = 315_576_000_000
NO_NUMBERS = [math.nan, math.inf, -math.inf]


def step(duration: Duration, **values: Any) -> Event:
    return identified(Event(step_finished=StepFinished(step_id="s", state=SUCCEEDED, duration=duration, **values)))


def tool_call(duration: Duration) -> Event:
    done = ToolCallOutcome.TOOL_CALL_OUTCOME_SUCCEEDED
    return identified(Event(tool_call_finished=ToolCallFinished(tool_call_id="c", outcome=done, duration=duration)))


def row(**values: Any) -> Event:
    return identified(Event(row_finished=RowFinished(row_id="r", iteration=1, **values)))


def ended(**values: Any) -> Event:
    return identified(Event(run_finished=RunFinished(state=SUCCEEDED, **values)))


def asked(seconds: int, nanos: int = 0) -> Event:
    expires = Timestamp(seconds=seconds, nanos=nanos)
    return identified(Event(input_requested=InputRequested(input_id="i", expire_time=expires)))


BAD: list[tuple[Event, str]] = [
    (step(Duration(seconds=LONGEST + 1)), ".step_finished.duration"),
    (step(Duration(seconds=-LONGEST - 1)), ".step_finished.duration"),
    (step(Duration(nanos=1_000_000_000)), ".step_finished.duration"),
    (step(Duration(nanos=-1_000_000_000)), ".step_finished.duration"),
    (step(Duration(seconds=1, nanos=-1)), ".step_finished.duration"),
    (step(Duration(seconds=-1, nanos=1)), ".step_finished.duration"),
    (tool_call(Duration(nanos=1 << 30)), ".tool_call_finished.duration"),
    (row(duration=Duration(seconds=-1 << 63)), ".row_finished.duration"),
    (ended(duration=Duration(seconds=1 << 62)), ".run_finished.duration"),
    (asked(253_402_300_800), ".input_requested.expire_time"),
    (asked(1, -1), ".input_requested.expire_time"),
    (step(Duration(), usage=TokenUsage(cost_usd=math.nan)), ".step_finished.usage.cost_usd"),
    (
        identified(Event(message_finished=MessageFinished(message_id="m", usage=TokenUsage(cost_usd=math.inf)))),
        ".message_finished.usage.cost_usd",
    ),
    (
        identified(Event(progress_reported=ProgressReported(usage=TokenUsage(cost_usd=-math.inf)))),
        ".progress_reported.usage.cost_usd",
    ),
    *((ended(usage=TokenUsage(cost_usd=number)), ".run_finished.usage.cost_usd") for number in NO_NUMBERS),
    *((row(metrics={"ms": 1, "cost": number}), ".row_finished.metrics['cost']") for number in NO_NUMBERS),
    (row(metrics={"\n" * 100: math.nan}), ".row_finished.metrics['" + r"\n" * 60 + "']"),
    (row(scores=[Score(number=1), Score(number=math.nan)]), ".row_finished.scores[1].number"),
    (
        ended(evaluation=EvaluationSummary(mean_scores={"correct": math.inf})),
        ".run_finished.evaluation.mean_scores['correct']",
    ),
    (
        row(scores=[Score(number=1), Score(number=-math.inf)]),
        ".row_finished.scores[1].number",
    ),
]

GOOD: list[Event] = [
    step(Duration()),
    step(Duration(seconds=LONGEST, nanos=999_999_999)),
    step(Duration(seconds=-LONGEST, nanos=-999_999_999)),
    step(Duration(nanos=-1)),
    asked(253_402_300_799, 999_999_999),
    asked(-62_135_596_800),
    ended(usage=TokenUsage(cost_usd=-0.0)),
    row(metrics={"": 1.7e308, "low": -5e-324}, scores=[Score(label="NaN"), Score(number=-1)]),
]


@pytest.mark.parametrize(("event", "path"), BAD, ids=[f"{number}{path}" for number, (_, path) in enumerate(BAD)])
def test_a_value_out_of_bounds_is_named_by_its_path(event: Event, path: str) -> None:
    with pytest.raises(Violation) as caught:
        event_rules.apply(opened(), [event])
    assert caught.value.path == f"batch.events[0]{path}"


@pytest.mark.parametrize("event", GOOD, ids=range(len(GOOD)))
def test_a_value_at_its_bounds_is_taken(event: Event) -> None:
    assert event_rules.apply(opened(), [event])


def opened() -> LogContent:
    """A log with step s, message m and tool call c open."""
    content = LogContent()
    event_rules.apply(content, [run_started(), step_started("s"), message_started("m"), tool_call_started("c")])
    return content


async def test_nothing_of_its_batch_is_stored(server: Server) -> None:
    await create(server.stubs)
    begun = [run_started(), step_started("s"), message_started("m"), tool_call_started("c")]
    await append(server.stubs, begun)
    for event, path in BAD:
        with refused_call("INVALID_FIELD", f"batch.events[1]{path}"):
            await append(server.stubs, [row(), event], first=5)
    assert bare(await listed(server.stubs)) == begun
    assert (await get(server.stubs)).state == RunState.RUN_STATE_RUNNING
    await append(server.stubs, [row(), *GOOD[:1], ended(duration=Duration(seconds=LONGEST))], first=5)
