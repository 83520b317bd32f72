"""Compares what was promised with what was read and what is stored; knows nothing of the server's rules."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import apsw

from chaos.history import History, Seen
from lavant.server.store.chunk import Chunk
from lavant.v1.event_service_pb2 import EventBatch


def stored_events(path: Path, run_id: str) -> list[Seen]:
    """Read a run's events from the file of a store that nobody has open."""
    with closing(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)) as connection:
        ((row,),) = connection.execute("SELECT id FROM runs WHERE run_id = ?", (run_id,)).fetchall()
        assert isinstance(row, int)
        sql = "SELECT events FROM batches WHERE id >> 32 = ? ORDER BY id"
        chunks = [Chunk.decode(bytes(blob)) for (blob,) in connection.execute(sql, (row,))]
    events = [event for chunk in chunks for event in EventBatch.FromString(chunk.data).events]
    return [Seen(event.sequence, event.event_id) for event in events]


def violations(history: History, listed: Sequence[Seen], stored: Sequence[Seen]) -> list[str]:
    """Name every promise that was broken. `listed` was read through the API at the end, `stored` from the file."""
    found: list[str] = []
    for name, log in (("the stream", history.streamed), ("the list", listed), ("the file", stored)):
        sequences = [seen.sequence for seen in log]
        if sequences != list(range(1, len(log) + 1)):
            found.append(f"{name} is not numbered 1..n: {_first_step_off(sequences)}")
        said = [seen.said for seen in log]
        if len(set(said)) != len(said):
            found.append(f"{name} has something twice: {sorted(one for one in set(said) if said.count(one) > 1)[:5]}")
        if invented := set(said) - history.invoked:
            found.append(f"{name} has what nobody sent: {sorted(invented)[:5]}")
        where = {seen.said: seen.sequence for seen in log}
        for one, sequence in history.acknowledged.items():
            if where.get(one) != sequence:
                found.append(f"{name} has {one} at {where.get(one)}, acknowledged at {sequence}")
    if not list(history.streamed) == list(listed) == list(stored):
        found.append("the stream, the list and the file differ")
    found += [
        f"the first event after the token of {token} was {first}"
        for token, first in history.first_after_token
        if first != token + 1
    ]
    return found


def _first_step_off(sequences: Sequence[int]) -> str:
    for expected, sequence in enumerate(sequences, 1):
        if sequence != expected:
            return f"{sequence} stands where {expected} should"
    return "nothing is there"
