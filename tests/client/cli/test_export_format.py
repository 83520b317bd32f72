"""The lines of an export say all that a message holds."""

import json

import pytest

from lavant.client.cli.export import InvalidLine, event_line, read_line, run_line
from lavant.v1.event_pb2 import ArtifactUpdated, Event, InputRequested, ProgressReported
from lavant.v1.run_pb2 import Run, TokenUsage
from support.events import a_run_of, custom

FIELD_OF_A_NEWER_SERVER = b"\xfa\x7f\x03new"  # number 2047, three bytes


def of_a_newer_server() -> Event:
    event = custom()
    event.MergeFromString(FIELD_OF_A_NEWER_SERVER)
    return event


def with_a_time_that_json_cannot_say() -> Event:
    event = Event(event_id="e", input_requested=InputRequested(input_id="i"))
    event.input_requested.expire_time.seconds = 10**15
    return event


SAID = [
    *a_run_of(6),
    Event(sequence=2**53 + 1, artifact_updated=ArtifactUpdated(data=b"\x00\xff")),
    Event(progress_reported=ProgressReported(completed=0, usage=TokenUsage(cost_usd=-0.0))),
    Event(attributes={"a\nb": "\u2028 \U0001f600"}, progress_reported=ProgressReported()),
]
NOT_SAID = [of_a_newer_server(), with_a_time_that_json_cannot_say()]


@pytest.mark.parametrize("event", SAID + NOT_SAID)
def test_an_event_is_read_as_it_was_written(event: Event) -> None:
    line = event_line(event)
    assert "\n" not in line
    read = read_line(line.encode())
    assert read.SerializeToString(deterministic=True) == event.SerializeToString(deterministic=True)


def test_bytes_are_kept_only_where_json_falls_short() -> None:
    assert ["@serialized" in json.loads(event_line(event)) for event in SAID] == [False] * len(SAID)
    assert ["@serialized" in json.loads(event_line(event)) for event in NOT_SAID] == [True, True]


def test_a_run_is_read_as_it_was_written() -> None:
    run = Run(run_id="r", name="n", labels={"lavant": "x"}, last_sequence=7)
    assert json.loads(run_line(run)) == {
        "lavant": "export/1",
        "run": {"run_id": "r", "name": "n", "labels": {"lavant": "x"}, "last_sequence": "7"},
    }
    assert read_line(run_line(run).encode()) == run


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b'{"sequence": "1"',
        b"[]",
        b"\xff",
        b"[" * 100_000,
        b'{"lavant": "export/1", "run": ' + b'{"labels":' * 100_000,
        b'{"nonsense": 1}',
        b'{"lavant": "export/2", "run": {}}',
        b'{"lavant": "export/1"}',
        b'{"@serialized": "?"}',
        b'{"@serialized": "AAAA"}',
        b'{"@serialized": 1}',
    ],
)
def test_damage_is_seen(line: bytes) -> None:
    with pytest.raises(InvalidLine):
        read_line(line)
