"""What the benchmarks write and how they reach the servers."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from google.protobuf.timestamp_pb2 import Timestamp

from lavant.v1.event_pb2 import Event, MessageStarted, RunStarted, TextDelta
from lavant.v1.event_service_pb2 import ProducerBatch
from lavant.v1.run_pb2 import RunFinished, RunState

TEXT = "A model's answer comes in pieces of about this length, a few words each, so does this. "


def batches(run_id: str, count: int, size: int) -> list[ProducerBatch]:
    """A run's batches of `size` text deltas each, without its RunFinished."""
    now = Timestamp()
    now.GetCurrentTime()

    def event(number: int) -> Event:
        event = Event(event_id=f"bench.{number}", event_time=now)
        if number == 1:
            event.run_started.CopyFrom(RunStarted())
        elif number == 2:
            event.message_started.CopyFrom(MessageStarted(message_id="m"))
        else:
            event.text_delta.CopyFrom(TextDelta(message_id="m", text=TEXT))
        return event

    return [
        ProducerBatch(
            run_id=run_id,
            producer_id="bench",
            producer_epoch=1,
            first_producer_sequence=first,
            events=[event(number) for number in range(first, first + size)],
        )
        for first in range(1, count * size + 1, size)
    ]


def finish(run_id: str, producer_sequence: int) -> ProducerBatch:
    """The batch that ends a run."""
    now = Timestamp()
    now.GetCurrentTime()
    ended = RunFinished(state=RunState.RUN_STATE_SUCCEEDED)
    event = Event(event_id=f"bench.{producer_sequence}", event_time=now, run_finished=ended)
    return ProducerBatch(
        run_id=run_id,
        producer_id="bench",
        producer_epoch=1,
        first_producer_sequence=producer_sequence,
        events=[event],
    )


@asynccontextmanager
async def bare_server(kind: str, file: Path) -> AsyncIterator[str]:
    """A server of `bare.py` in a process of its own; gives its address."""
    script = Path(__file__).with_name("bare.py")
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(script), kind, str(file), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        yield (await process.stdout.readline()).decode().strip()
    finally:
        process.kill()
        await process.wait()
