"""Bytes on disk for each token that a client publishes."""

from pathlib import Path
from random import Random

from benchmarks.kit.report import Aim, Table
from benchmarks.kit.rounds import Bench
from benchmarks.peers.base import at_once
from benchmarks.peers.lavant import serve
from lavant.client import AsyncClient
from lavant.v1.event_service_pb2 import ListEventsRequest
from support.server import Stubs, connected

BYTES = "bytes a token"
TOKENS = 100  # a run
VOCABULARY = ["".join(Random(rank).choices("abcdefghijklmnopqrstuvwxyz", k=5)) + " " for rank in range(2_000)]
WEIGHTS = [1 / (rank + 1) for rank in range(2_000)]  # Zipf's law
WORDS = {"tokens of 6 B": 1, "pieces of 102 B": 17}  # of 6 B, per token


async def run(bench: Bench) -> list[Table]:
    """Compare the store's file, after the server has stopped, with the bytes of the events as they were sent."""
    return [await _table(bench, name, words) for name, words in WORDS.items()]


async def _table(bench: Bench, name: str, words: int) -> Table:
    runs = bench.size(500, quick=100)
    folder = bench.subfolder(name)
    async with serve(folder) as server, connected(server.address) as stubs, AsyncClient(server.address) as client:

        async def produce(number: int) -> None:
            random = Random(number)
            async with client.runs.start("agent", run_id=f"run-{number}") as started:
                for _ in range(TOKENS):
                    await started.text(_text(random, words))

        await at_once(4, runs, produce)
        sent = await _sent(stubs, "run-0") / TOKENS
    stored = _size(folder / "lavant.db") / runs / TOKENS
    return Table(
        name=f"disk: {name}",
        title=f"{name}, {runs} runs of {TOKENS}",
        measured={"lavant": [{BYTES: stored}], "as sent": [{BYTES: sent}]},
        aims=[Aim(unit=BYTES, at_most=60)] if words == 1 else [Aim(unit=BYTES, beside="as sent", at_most=0.4)],
        recorded=[BYTES],
    )


async def _sent(stubs: Stubs, run_id: str) -> int:
    """Return the bytes of a run's events without what the server adds."""
    events = (await stubs.events.ListEvents(ListEventsRequest(run_id=run_id, page_size=1_000))).events
    for event in events:
        event.ClearField("sequence")
        event.ClearField("record_time")
    return sum(event.ByteSize() for event in events)


def _size(file: Path) -> int:
    return file.stat().st_size


def _text(random: Random, words: int) -> str:
    """Return words of a language of 2,000, the common ones more often: text that repeats compresses too well."""
    return "".join(random.choices(VOCABULARY, WEIGHTS, k=words))
