"""Requests that break a rule: each answer names it, and shows nothing of the server's inside."""

from dataclasses import dataclass, replace
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from lavant.v1 import event_service_pb2 as events
from lavant.v1 import run_service_pb2 as runs
from lavant.v1.event_pb2 import Event, EventType
from lavant.v1.run_pb2 import RunFinished, RunSettings
from server.rpc.raw import send
from support.calls import answer, create, publish, publishing
from support.events import a_run_of, batch_of, custom, run_finished, run_started, text_delta
from support.server import Server
from support.status import refused, rejection

RUNS, EVENTS = "/lavant.v1.RunService/", "/lavant.v1.EventService/"
STRANGE_IDS = {
    "path": "../../etc/passwd",
    "dot": ".",
    "dots": "..",
    "slash": "a/b",
    "nul": "a\0b",
    "star": "a*",
    "greater": ">",
    "double quote": 'a"b',
    "single quote": "' OR 1=1 --",
    "space": "a b",
    "newline": "a\n",
    "10 KB": "a" * 10_240,
    "129 characters": "a" * 129,
    "accent": "ünïcödé",
    "digit": "١٢٣",
    "emoji": "\N{FIRE}",
    "markup": "<img onerror=alert(1)>",
    "subject": "$JS.API.>",
}


@dataclass(frozen=True)
class Bad:
    """A request, and the field that its answer must name."""

    method: str
    request: Message
    path: str


def named_with(run_id: str) -> dict[str, Bad]:
    """Every request that names a run, or something like it."""
    return {
        "create": Bad(
            RUNS + "CreateRun", runs.CreateRunRequest(run_id=run_id, settings=RunSettings(name="x")), "run_id"
        ),
        "parent": creating(parent_run_id=run_id),
        "get": Bad(RUNS + "GetRun", runs.GetRunRequest(run_id=run_id), "run_id"),
        "wait": Bad(RUNS + "WaitRun", runs.WaitRunRequest(run_id=run_id), "run_id"),
        "cancel": Bad(RUNS + "CancelRun", runs.CancelRunRequest(run_id=run_id), "run_id"),
        "delete": Bad(RUNS + "DeleteRun", runs.DeleteRunRequest(run_id=run_id), "run_id"),
        "list": Bad(EVENTS + "ListEvents", events.ListEventsRequest(run_id=run_id), "run_id"),
        "append": Bad(EVENTS + "AppendEvents", appending([custom()], run_id=run_id), "batch.run_id"),
        "stream": Bad(EVENTS + "StreamEvents", streaming(run_id=run_id), "run_id"),
    }


def read_by(reader_id: str) -> dict[str, Bad]:
    """Every request that names a reader."""
    return {
        "consumer": Bad(EVENTS + "StreamEvents", streaming(consumer_id=reader_id), "consumer_id"),
        "session": Bad(EVENTS + "StreamEvents", streaming(session_id=reader_id), "session_id"),
    }


def appending(batch: list[Event], **numbers: Any) -> events.AppendEventsRequest:
    """A request to append; the numbers are those of `batch_of`."""
    return events.AppendEventsRequest(batch=batch_of(batch, **numbers))


def streaming(**fields: Any) -> events.StreamEventsRequest:
    """A request to stream the run named "run"."""
    return events.StreamEventsRequest(**{"run_id": "run", "consumer_id": "ui", **fields})


def creating(**fields: Any) -> Bad:
    """A request to create a run; the first field is the bad one."""
    settings = RunSettings(**{"name": "x", **fields})
    return Bad(RUNS + "CreateRun", runs.CreateRunRequest(settings=settings), f"settings.{next(iter(fields))}")


def listing(path: str, **fields: Any) -> Bad:
    """A request to list runs by a filter."""
    return Bad(RUNS + "ListRuns", runs.ListRunsRequest(filter=runs.RunFilter(**fields)), f"filter.{path}")


def waiting(**timeout: int) -> Bad:
    """A request to wait."""
    return Bad(RUNS + "WaitRun", runs.WaitRunRequest(run_id="run", timeout=Duration(**timeout)), "timeout")


def stream(path: str, **fields: Any) -> Bad:
    """A request to stream."""
    return Bad(EVENTS + "StreamEvents", streaming(**fields), path)


def append(path: str, *batch: Event, **numbers: Any) -> Bad:
    """A request to append to the run named "run"."""
    return Bad(EVENTS + "AppendEvents", appending(list(batch), **numbers), f"batch{path}")


def timed(seconds: int, nanos: int) -> Event:
    """An event that happened at a strange time."""
    return Event(
        event_id="e", event_time=Timestamp(seconds=seconds, nanos=nanos), run_started=run_started().run_started
    )


def finished(state: int) -> Event:
    """An end in a strange state."""
    event = run_finished()
    event.run_finished.CopyFrom(RunFinished(state=state))  # type: ignore[arg-type]
    return event


UNKNOWN: Any = [99]
MANY_LABELS = {f"key-{number}": "v" for number in range(65)}
HUGE = '"' + "x" * (1 << 20) + '"'
TABLE = {
    **{f"{name} in {where}": bad for name, value in STRANGE_IDS.items() for where, bad in named_with(value).items()},
    **{
        f"{name} in {where}": bad
        for name in ("nul", "newline", "10 KB", "129 characters")
        for where, bad in read_by(STRANGE_IDS[name]).items()
    },
    **{f"no id in {where}": bad for where, bad in named_with("").items() if where not in {"create", "parent"}},
    "no id in consumer": read_by("")["consumer"],
    "no name": creating(name=""),
    "long name": creating(name="x" * 257),
    "control characters in a name": creating(name="a\x1b[31m"),
    "unknown kind": creating(kind=99),
    "negative kind": creating(kind=-1),
    "too many labels": creating(labels=MANY_LABELS),
    "long conversation": creating(conversation_id="x" * 257),
    "no producer_timeout": creating(producer_timeout=Duration()),
    "negative producer_timeout": creating(producer_timeout=Duration(seconds=-9)),
    "endless producer_timeout": creating(producer_timeout=Duration(seconds=2**63 - 1)),
    "signs that differ": creating(producer_timeout=Duration(seconds=9, nanos=-1)),
    "nanos beyond a second": creating(producer_timeout=Duration(seconds=9, nanos=2**31 - 1)),
    "least nanos": creating(producer_timeout=Duration(seconds=9, nanos=-(2**31))),
    "long label key": creating(labels={"k" * 129: ""}),
    "empty label key": creating(labels={"": "v"}),
    "long label": replace(creating(labels={"k": "v" * 1025}), path="settings.labels['k']"),
    "no name of a run to create": append(".create.name", run_started(), create=RunSettings()),
    "long label of a run to create": append(
        ".create.labels['k']", run_started(), create=RunSettings(name="x", labels={"k": "v" * 1025})
    ),
    "long reason": Bad(RUNS + "CancelRun", runs.CancelRunRequest(run_id="run", reason="x" * 1025), "reason"),
    "long wait": waiting(seconds=61),
    "negative wait": waiting(seconds=-1),
    "wait with strange nanos": waiting(nanos=2**31 - 1),
    "empty page": Bad(RUNS + "ListRuns", runs.ListRunsRequest(page_size=0), "page_size"),
    "negative page": Bad(RUNS + "ListRuns", runs.ListRunsRequest(page_size=-1), "page_size"),
    "large page": Bad(RUNS + "ListRuns", runs.ListRunsRequest(page_size=1_001), "page_size"),
    "unknown kind in a filter": listing("kinds[1]", kinds=[1, 99]),
    "unknown state in a filter": listing("states[0]", states=[9]),
    "empty name in a filter": listing("names[0]", names=[""]),
    "too many names in a filter": listing("names", names=["x"] * 101),
    "too many kinds in a filter": listing("kinds", kinds=[1] * 1_000_000),
    "too many states in a filter": listing("states", states=[1] * 1_000_000),
    "too many labels in a filter": listing("labels", labels=MANY_LABELS),
    "created after the year 9999": listing("created_after", created_after=Timestamp(seconds=2**62)),
    "created before the year 1": listing("created_before", created_before=Timestamp(seconds=-(2**62))),
    "created at strange nanos": listing("created_after", created_after=Timestamp(nanos=-1)),
    "unknown kind in a watch": Bad(
        RUNS + "WatchRuns",
        runs.WatchRunsRequest(filter=runs.RunFilter(kinds=UNKNOWN)),
        "filter.kinds[0]",
    ),
    "negative page of events": Bad(
        EVENTS + "ListEvents", events.ListEventsRequest(run_id="run", page_size=-1), "page_size"
    ),
    "unknown type in a list": Bad(
        EVENTS + "ListEvents",
        events.ListEventsRequest(run_id="run", types=[EventType.EVENT_TYPE_RUN_STARTED, *UNKNOWN]),
        "types[1]",
    ),
    "unknown type in a stream": stream("types[0]", types=[19]),
    "type 0 in a stream": stream("types[0]", types=[0]),
    "too many types": stream("types", types=[20] * 1_000_000),
    "negative attempt": stream("attempt", attempt=-1),
    "unknown start": stream("start", start=9),
    "unknown stop": stream("stop", stop=9),
    "unknown delta mode": stream("deltas", deltas=9),
    "short heartbeat": stream("heartbeat_interval", heartbeat_interval=Duration(nanos=1)),
    "long heartbeat": stream("heartbeat_interval", heartbeat_interval=Duration(seconds=61)),
    "negative idle_timeout": stream("idle_timeout", idle_timeout=Duration(seconds=-1)),
    "strange idle_timeout": stream("idle_timeout", idle_timeout=Duration(seconds=60, nanos=-(2**31))),
    "no producer": append(".producer_id", run_started(), producer_id=""),
    "long producer": append(".producer_id", run_started(), producer_id="p" * 129),
    "nul in a producer": append(".producer_id", run_started(), producer_id="p\0"),
    "negative epoch": append(".producer_epoch", run_started(), epoch=-1),
    "number 0": append(".first_producer_sequence", run_started(), first=0),
    "negative number": append(".first_producer_sequence", run_started(), first=-(2**63)),
    "too many events": append(".events", *a_run_of(1_001)),
    "large event": append("", run_started(), custom(value_json=HUGE)),
    "no event_id": append(".events[0].event_id", Event(run_started=run_started().run_started)),
    "no event_time": append(".events[0].event_time", Event(event_id="e", run_started=run_started().run_started)),
    "year 10000": append(".events[0].event_time", timed(253_402_300_800, 0)),
    "year 0": append(".events[0].event_time", timed(-62_135_596_801, 0)),
    "nanos": append(".events[0].event_time", timed(0, 2**31 - 1)),
    "negative nanos": append(".events[0].event_time", timed(1, -1)),
    "no payload": append(".events[1].payload", run_started(), Event(event_id="e", event_time=Timestamp(seconds=1))),
    "end in no terminal state": append(".events[1].run_finished.state", run_started(), finished(2)),
    "end in an unknown state": append(".events[1].run_finished.state", run_started(), finished(99)),
    "a delta of no message": append(".events[1].text_delta.message_id", run_started(), text_delta()),
    "JSON that is none": append(".events[1].custom.value_json", run_started(), custom(value_json="{'a': 1}")),
    "a second beginning": append(".events[1].run_started", run_started(), run_started()),
    "no beginning": append(".events[0].custom", custom()),
}


@pytest.mark.parametrize("bad", TABLE.values(), ids=TABLE)
async def test_the_bad_field_is_named(server: Server, bad: Bad) -> None:
    await create(server.stubs)
    with refused("INVALID_FIELD", bad.path) as refusal:
        await send(server.stubs, bad.method, bad.request.SerializeToString())
    assert refusal.status.ByteSize() < 4_096  # metadata is limited to 8 KB


@pytest.mark.parametrize("name", [name for name, bad in TABLE.items() if bad.method.endswith("AppendEvents")])
async def test_publishing_names_the_same_field_and_goes_on(server: Server, name: str) -> None:
    await create(server.stubs)
    request = TABLE[name].request
    assert isinstance(request, events.AppendEventsRequest)
    async with publishing(server.stubs) as call:
        await call.write(events.PublishEventsRequest(batches=[request.batch]))
        await publish(call, [run_started()])
        first, second = await answer(call), await answer(call)
    assert first.run_id == request.batch.run_id
    assert rejection(first.rejection, "INVALID_FIELD").path == TABLE[name].path
    assert second.receipt.last_sequence == 1
