"""Tokens of positions that a log does not have: a store's file was put back to an earlier state by hand."""

import shutil
from pathlib import Path

import httpx
import pytest

from lavant.v1 import event_service_pb2 as pb
from support.calls import append
from support.events import a_run_of, run_finished
from support.server import Stubs, serving
from support.status import refused as refused_call
from support.streams import create, failure, stream, streamed

EVENTS = a_run_of(12)
OLD, NEW = 6, 11  # events of the run before and after the copy was made


async def token_at(stubs: Stubs, sequence: int) -> str:
    """Return the token after an event."""
    request = pb.ListEventsRequest(run_id="run", page_size=sequence)
    return (await stubs.events.ListEvents(request)).resume_token


@pytest.fixture
async def tokens(tmp_path: Path) -> dict[int, str]:
    """Tokens of a log that was longer once, by their sequences; the store holds the shorter one now."""
    path = tmp_path / "lavant.db"
    async with serving(tmp_path) as server:
        await create(server.stubs)
        await append(server.stubs, EVENTS[:OLD])
    shutil.copy(path, tmp_path / "copy.db")
    async with serving(tmp_path) as server:
        await append(server.stubs, EVENTS[OLD:NEW], first=OLD + 1)
        tokens = {sequence: await token_at(server.stubs, sequence) for sequence in range(1, NEW + 1)}
    (tmp_path / "copy.db").replace(path)
    return tokens


@pytest.mark.parametrize("sequence", [OLD + 1, NEW - 1, NEW])
async def test_a_token_beyond_the_end_is_refused(tmp_path: Path, tokens: dict[int, str], sequence: int) -> None:
    """Whoever holds it has events that the log no longer has: what comes next would not follow on them."""
    async with serving(tmp_path, http="127.0.0.1:0") as server, httpx.AsyncClient() as web:
        token = tokens[sequence]
        for deltas in (pb.DELTA_MODE_ALL, pb.DELTA_MODE_MERGED):
            refusal = await failure(stream(server.stubs, resume_token=token, deltas=deltas, session_id="s"))
            assert refusal.reason == "RESUME_TOKEN_INVALID"
        with refused_call("RESUME_TOKEN_INVALID"):
            await server.stubs.events.ListEvents(pb.ListEventsRequest(run_id="run", page_token=token))
        url = f"http://{server.app.http_address}/api/v1/runs/run"
        for answer in (
            await web.get(f"{url}/stream", headers={"last-event-id": token}),
            await web.get(f"{url}/stream", params={"last_event_id": token}),
            await web.get(f"{url}/events", params={"page_token": token}),
        ):
            assert "RESUME_TOKEN_INVALID" in answer.text
            assert answer.status_code == 400
        whole = [*EVENTS[:OLD], run_finished()]  # the run ends, and the token is beyond its end still or again
        await append(server.stubs, whole[OLD:], first=OLD + 1)
        assert (await streamed(server.stubs, session_id="s", attempt=2)).sequences == list(range(1, len(whole) + 1))
        if sequence > len(whole):
            answer = await web.get(f"{url}/stream", headers={"last-event-id": token})
            assert answer.status_code == 400, "204 would say that the reader has seen all"


async def test_a_token_within_the_log_goes_on(tmp_path: Path, tokens: dict[int, str]) -> None:
    async with serving(tmp_path) as server:
        await append(server.stubs, EVENTS[OLD:], first=OLD + 1)
        for sequence in range(1, OLD + 1):
            rest = await streamed(server.stubs, resume_token=tokens[sequence])
            assert rest.sequences == list(range(sequence + 1, len(EVENTS) + 1))
