"""`lavant store rotate-key`: tokens stay valid, on both engines, also while servers use the store."""

import time
from base64 import urlsafe_b64decode
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from lavant.client import AsyncClient
from lavant.client.errors import ResumeTokenInvalid
from lavant.server.errors import StartError
from lavant.server.store.jetstream import Location
from lavant.server.store.token_keys import ACTIVATION_DELAY
from support.calls import until
from support.clock import ManualClock
from support.command import run_command
from support.nats import NatsServer
from support.server import Server, serving

KEYS = {"mine": "0123456789abcdef" * 4}


async def rotate(store: str, *flags: str) -> str:
    """Run the command; return what it prints."""
    ended = await run_command("store", "rotate-key", "--store", store, *flags)
    assert (ended.status, ended.err) == (0, "")
    return ended.out


async def token_of(server: Server) -> str:
    """Return a resume token of a run, which is created if it is missing."""
    async with AsyncClient(server.target) as client:
        await client.runs.create("agent", run_id="run")
        async with client.runs.stream("run", stop="head") as stream:
            assert [event async for event in stream] == []
        return str(stream.resume_token)


async def resumes(server: Server, token: str) -> bool:
    """Return whether a stream continues after a token."""
    async with AsyncClient(server.target) as client:
        try:
            async with client.runs.stream("run", resume_token=token, stop="head") as stream:
                return [event async for event in stream] == []
        except ResumeTokenInvalid:
            return False


async def test_tokens_of_a_file_stay_valid(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/lavant.db"
    async with serving(tmp_path) as server:
        token = await token_of(server)
        refused = await run_command("store", "rotate-key", "--store", store)
        assert refused.status == 1
        assert "is in use by another process" in refused.err
    printed = await rotate(store, "--verify-for", "3600")
    assert printed.startswith("store: verifies until ")
    assert "\nstore-2: signs from " in printed
    async with serving(tmp_path) as server:
        assert await resumes(server, token)
    await rotate(store, "--verify-for", "0")
    async with serving(tmp_path) as server:
        assert not await resumes(server, token)


async def test_replicas_learn_a_new_key_without_a_restart(nats: NatsServer, location: Location, tmp_path: Path) -> None:
    clock = ManualClock(time_ns=time.time_ns())
    shared: dict[str, Any] = {"store": str(location), "clock": clock}
    async with serving(tmp_path / "a", **shared) as one, serving(tmp_path / "b", **shared) as other:
        token = await token_of(one)
        with capture_logs() as entries:
            await rotate(str(location), "--verify-for", "100000000")
            await until(lambda: is_read_by(2, entries, clock))
        assert key_id(await token_of(one)) == "store"
        with capture_logs() as entries:
            clock.advance(ACTIVATION_DELAY)
            await until(lambda: is_read_by(2, entries, clock))
        newer = await token_of(other)
        assert (key_id(token), key_id(newer)) == ("store", "store-2")
        assert all([await resumes(server, each) for server in (one, other) for each in (token, newer)])


def is_read_by(count: int, entries: list[Any], clock: ManualClock) -> bool:
    """Return whether so many servers have read new keys; lets time pass until they read again."""
    clock.advance(1)
    return [entry["event"] for entry in entries].count("token_keys_changed") == count


def key_id(token: str) -> str:
    """Return the ID of the key that signed a token."""
    signed = urlsafe_b64decode(token.partition(".")[0] + "==")
    return signed[1 : 1 + signed[0]].decode()


async def test_keys_of_the_settings_keep_the_store_without_one(
    nats: NatsServer, location: Location, tmp_path: Path
) -> None:
    async with serving(tmp_path, store=str(location), token_keys=KEYS) as server:
        token = await token_of(server)
        assert key_id(token) == "mine"
    with pytest.raises(StartError, match="made without a key that signs tokens; set the keys"):
        async with serving(tmp_path, store=str(location)):
            pass
    assert await rotate(str(location)) == "store: signs\n"
    async with serving(tmp_path, store=str(location), token_keys=KEYS) as server:
        assert await resumes(server, token)


async def test_file_of_a_server_with_keys_has_none(tmp_path: Path) -> None:
    async with serving(tmp_path, token_keys=KEYS) as server:
        token = await token_of(server)
    with pytest.raises(StartError, match="made without a key"):
        async with serving(tmp_path):
            pass
    async with serving(tmp_path, token_keys=KEYS) as server:
        assert await resumes(server, token)


async def test_keys_are_taken_out_of_a_store(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/lavant.db"
    async with serving(tmp_path) as server:
        token = await token_of(server)
    assert (await rotate(store, "--remove")).startswith("store: verifies until ")
    async with serving(tmp_path, token_keys=KEYS) as server:
        assert await resumes(server, token)
        assert await token_of(server) != token
    assert await rotate(store, "--remove", "--verify-for", "0") == (
        "the store has no keys: set --token-keys-file for its servers\n"
    )
    async with serving(tmp_path, token_keys=KEYS) as server:
        assert not await resumes(server, token)


async def test_a_store_that_does_not_exist_is_named(tmp_path: Path) -> None:
    ended = await run_command("store", "rotate-key", "--store", f"sqlite:///{tmp_path}/none.db")
    assert ended.status == 1
    assert "there is no store at" in ended.err
    assert ended.out == ""
