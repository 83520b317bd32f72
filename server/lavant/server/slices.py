"""Slices: long work on the event loop, a little at a time."""

import asyncio
from collections.abc import Iterable
from time import perf_counter
from typing import TypeVar
from weakref import WeakKeyDictionary

from lavant.server.turns import Turns

_Piece = TypeVar("_Piece")

SLICE = 0.0005  # seconds: a request needs several iterations of the loop, and each may have a slice in it
_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, Turns] = WeakKeyDictionary()


async def in_slices(work: Iterable[_Piece]) -> list[_Piece]:
    """Return all pieces of some work, which may pause between any two of them, so that others are not held up.

    In each iteration of the event loop there is one slice at most, whoever it is for: callers have them in turn.
    """
    loop = asyncio.get_running_loop()
    turns = _turns.get(loop)
    if turns is None:
        turns = _turns[loop] = Turns(1)
    pieces: list[_Piece] = []
    left = iter(work)
    while True:
        await turns.acquire()
        try:
            ends_at = perf_counter() + SLICE
            for piece in left:
                pieces.append(piece)
                if perf_counter() >= ends_at:
                    break
            else:
                return pieces
        finally:
            loop.call_soon(turns.release)  # in the next iteration
        await asyncio.sleep(0)
