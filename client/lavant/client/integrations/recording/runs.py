"""The run that an integration records into: its options, its start and end, its cancellation on request."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from types import TracebackType
from typing import Protocol, TypedDict, TypeVar

from lavant.client import AsyncClient, AsyncRunProducer, Client, ProducerOptions, Usage
from lavant.client._publishing.guard import Guard
from lavant.client.options import OnError
from lavant.v1.event_pb2 import Event

ClientT = TypeVar("ClientT", AsyncClient, Client)


class EventLog(Protocol):
    """A run's producer, of either kind, or what stands in for one."""

    def enqueue(self, event: Event) -> None:
        """Queue an event without ever waiting."""
        ...


class RunLog(EventLog, Protocol):
    """A run's producer, of either kind, with the usage that is reported at its end."""

    usage: Usage | None


class RunOptions(TypedDict):
    """Arguments of `client.runs.start` that all runs of one handler, runner or capability have in common."""

    labels: Mapping[str, str] | None
    producer_timeout: float | None
    on_error: OnError
    options: ProducerOptions | None


def check_client(client: object, kind: type[ClientT], owner: str) -> ClientT:
    """Return the client. Raises TypeError if it is not of this kind."""
    if isinstance(client, kind):
        return client
    article = "an" if kind is AsyncClient else "a"
    raise TypeError(f"{owner} needs {article} {kind.__name__}, not {type(client).__name__}")


@asynccontextmanager
async def guarded_run(guard: Guard, make: Callable[[], AsyncRunProducer]) -> AsyncIterator[AsyncRunProducer | None]:
    """Make and start a run, and end it with what the block raises; None if it cannot be made or started."""
    run: AsyncRunProducer | None = None
    with guard:
        made = make()
        await made.__aenter__()
        run = made
    try:
        yield run
    except BaseException as error:
        if run is not None:
            with guard:
                await run.__aexit__(type(error), error, error.__traceback__)
        raise
    if run is not None:
        with guard:
            await run.__aexit__(None, None, None)


@contextmanager
def calling_on_cancel(run: AsyncRunProducer, cancel: Callable[[], object]) -> Iterator[None]:
    """Call `cancel` if CancelRun is called for a run while the block is open."""

    async def watch() -> None:
        await run.wait_cancelled()
        cancel()

    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        # Not awaited: nothing may come between the end of the work and the end of its run.
        watching.cancel()


class CancelOnRequest:
    """Cancels a task once CancelRun is called for its run, and distinguishes that cancellation from all others.

    Around a block in the task itself: `with CancelOnRequest(run, asyncio.current_task())` raises RunCancelled. Where
    the end is reported by a callback, call `stop`, in any task, and `check` in the task with what ended the work.
    """

    def __init__(self, run: AsyncRunProducer, task: "asyncio.Task[object] | None") -> None:
        self._run = run
        self._task = task
        self._was_cancelling = task.cancelling() if task else 0
        self._has_cancelled = False
        self._watching = calling_on_cancel(run, self._cancel)
        self._watching.__enter__()

    def stop(self) -> None:
        """Stop watching. Never waits."""
        self._watching.__exit__(None, None, None)

    def check(self, error: BaseException | None) -> None:
        """Raise RunCancelled if it was CancelRun that ended the work, and nobody else cancelled the task."""
        if not self._has_cancelled or self._task is None or self._task.done():
            return
        self._has_cancelled = False
        has_others = self._task.uncancel() > self._was_cancelling
        if isinstance(error, asyncio.CancelledError) and not has_others:
            self._run.raise_if_cancelled()

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
        self.check(error)

    def _cancel(self) -> None:
        if self._task is not None and not self._task.done():
            self._has_cancelled = True
            self._task.cancel()
