"""Calls what may block, apart from the event loop."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import copy_context
from typing import TypeVar

_Argument = TypeVar("_Argument")
_Result = TypeVar("_Result")


async def in_thread(function: Callable[[_Argument], _Result], argument: _Argument) -> _Result:
    """Call a function in a thread of its own; return what it returns, raise what it raises.

    If the call is cancelled, the thread goes on until the function returns. It takes no place in the event loop's
    pool meanwhile, and does not keep the process from ending. A StopIteration is raised as a RuntimeError.
    """
    done: Future[_Result] = Future()
    done.set_running_or_notify_cancel()  # So that its result may still come when nobody waits any more.
    context = copy_context()

    def work() -> None:
        try:
            done.set_result(context.run(function, argument))
        except StopIteration:
            # asyncio's futures cannot hold it: whoever awaits one would wait for ever.
            done.set_exception(RuntimeError("StopIteration was raised"))
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=work, daemon=True, name="lavant-evaluator").start()
    return await asyncio.wrap_future(done)
