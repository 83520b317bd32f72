"""The events that benchmarks write, as the systems that they compare take them."""

from collections.abc import Sequence

import orjson
from google.protobuf.timestamp_pb2 import Timestamp

from lavant.v1.event_pb2 import Event, MessageStarted, RunStarted, TextDelta
from lavant.v1.event_service_pb2 import ProducerBatch
from lavant.v1.run_pb2 import RunFinished, RunSettings, RunState
from lavant.v1.run_service_pb2 import CreateRunRequest

TEXT = "It is cold in Oslo today, minus four degrees, and the wind comes from the north: dress warmly, please."[:100]
RESULT = " ".join(f'{{"id": {row}, "name": "row {row}", "value": {row * 1.5}}},' for row in range(45))[:2048]
SETTINGS = RunSettings(name="agent", labels={"env": "prod"})
SMALL_RUN = (*[TEXT] * 19, RESULT)


def create_request(run_id: str) -> CreateRunRequest:
    """Return the request that creates a run."""
    return CreateRunRequest(run_id=run_id, settings=SETTINGS)


def batch(run_id: str, first: int, texts: Sequence[str], *, end: bool = False, create: bool = False) -> ProducerBatch:
    """Return text deltas of one message; those that begin a run come after its start, `end` adds its finish.

    With `create`, the batch creates the run.
    """
    now = Timestamp()
    now.GetCurrentTime()
    events = [Event(text_delta=TextDelta(message_id="m", text=text)) for text in texts]
    if first == 1:
        events = [Event(run_started=RunStarted()), Event(message_started=MessageStarted(message_id="m")), *events]
    if end:
        events.append(Event(run_finished=RunFinished(state=RunState.RUN_STATE_SUCCEEDED)))
    sequence = 1 if first == 1 else first + 2
    for number, event in enumerate(events, sequence):
        event.event_id = f"bench.{number}"
        event.event_time.CopyFrom(now)
    return ProducerBatch(
        run_id=run_id,
        producer_id="bench",
        producer_epoch=1,
        first_producer_sequence=sequence,
        events=events,
        create=SETTINGS if create else None,
    )


def json_events(first: int, texts: Sequence[str]) -> list[bytes]:
    """Return the same text deltas as JSON."""
    time = "2026-01-01T00:00:00.000000Z"
    return [
        orjson.dumps({"id": f"bench.{number}", "type": "text_delta", "time": time, "message_id": "m", "text": text})
        for number, text in enumerate(texts, first)
    ]


def text_of(data: bytes) -> str:
    """Return the text of an event that came as JSON."""
    text = orjson.loads(data)["text"]
    assert isinstance(text, str)
    return text
