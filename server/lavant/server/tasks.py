"""Work on many items, a few at a time."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

_Item = TypeVar("_Item")


async def for_each(work: Callable[[_Item], Awaitable[object]], items: Iterable[_Item], *, at_once: int) -> None:
    """Do the work for each item, in their order, of which `at_once` at most are under way at a time.

    A slow item leaves the other places to the rest. The first exception ends the rest, and is raised.
    """
    all_items = list(items)
    waiting = iter(all_items)

    async def work_on() -> None:
        for item in waiting:
            await work(item)

    try:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(min(at_once, len(all_items))):
                tasks.create_task(work_on())
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None
