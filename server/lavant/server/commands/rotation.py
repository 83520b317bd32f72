"""Rotation of the keys of a store that sign tokens."""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from lavant.server.store.token_keys import TokenKey, rotated

if TYPE_CHECKING:
    from lavant.server.store.jetstream import Location

_Change = Callable[[Sequence[TokenKey]], Sequence[TokenKey]]


class _Rotation:
    """A change of keys, and the keys that it resulted in."""

    def __init__(self, verify_for: float, *, replaced: bool) -> None:
        self._rotate = partial(rotated, now_ns=time.time_ns(), verify_for=verify_for, replaced=replaced)
        self.keys: list[TokenKey] = []

    def __call__(self, keys: Sequence[TokenKey]) -> list[TokenKey]:
        self.keys = self._rotate(keys)
        return self.keys


def rotate_in_file(path: Path, verify_for: float, *, replaced: bool) -> list[TokenKey]:
    """Rotate the keys of a SQLite store; return the new ones. Raises StoreLocked while a server has it."""
    from lavant.server.store.sqlite.backup import check_exists
    from lavant.server.store.sqlite.files import FileLock
    from lavant.server.store.sqlite.schema import change_token_keys, connect

    check_exists(path, "store")
    rotation = _Rotation(verify_for, replaced=replaced)
    lock = FileLock(path)
    try:
        with closing(connect(path)) as connection, connection:
            change_token_keys(connection, path, rotation)
    finally:
        lock.release()
    return rotation.keys


def rotate_on_nats(location: "Location", verify_for: float, *, replaced: bool) -> list[TokenKey]:
    """Rotate the keys of a store on NATS, also while servers use it; return the new ones."""
    from lavant.server.store.jetstream.connection import Connection
    from lavant.server.store.jetstream.setup import change_token_keys

    rotation = _Rotation(verify_for, replaced=replaced)

    async def rotate() -> None:
        connection = await Connection.open(location)
        try:
            await change_token_keys(connection, location, rotation)
        finally:
            await connection.close()

    asyncio.run(rotate())
    return rotation.keys


def describe(key: TokenKey) -> str:
    """Return what a key does and until when."""
    if key.expires_ns is not None:
        return f"verifies until {_time(key.expires_ns)}"
    return f"signs from {_time(key.signs_from_ns)} on" if key.signs_from_ns else "signs"


def _time(time_ns: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time_ns // 1_000_000_000))
