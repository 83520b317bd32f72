"""A reader of the blocking client that stops early releases its consumer's lease."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from lavant.client import Client, ConsumerBusy, RunStream, StreamCut
from lavant.client.events import Event
from support.calls import append, create
from support.events import message_started, run_started, text_delta, tool_call_finished, tool_call_started
from support.server import ServerProcess, connected

Form = Callable[[RunStream, Callable[[], bool]], None]
LIMIT = 1.0  # seconds in which the lease is free; one that is not released lasts fifteen
RECORDED = [run_started(), message_started(), text_delta(), tool_call_started(), tool_call_finished()]


class Left(Exception):
    """Leaves a loop."""


class Interrupted(BaseException):
    """Leaves whatever there is, as KeyboardInterrupt does."""


def in_a_block(stream: RunStream, reached: Callable[[], bool]) -> None:
    with stream:
        for _ in stream:
            if reached():
                break


def bare(stream: RunStream, reached: Callable[[], bool]) -> None:
    for _ in stream:
        if reached():
            break


def by_text(stream: RunStream, reached: Callable[[], bool]) -> None:
    for _ in stream.text_chunks:
        if reached():
            break


def by_tool_calls(stream: RunStream, reached: Callable[[], bool]) -> None:
    for _ in stream.tool_calls:
        if reached():
            break


forms = pytest.mark.parametrize("form", [in_a_block, bare, by_text, by_tool_calls])


def no() -> bool:
    return False


def leave() -> bool:
    raise Left


def interrupt(event: Event) -> None:
    raise Interrupted


@pytest.fixture
async def target(server_process: ServerProcess) -> str:
    """A server with a run at work."""
    async with connected(server_process.target) as stubs:
        await create(stubs)
        await append(stubs, RECORDED)
    return server_process.target


@pytest.fixture
def rival(target: str) -> Iterator[Client]:
    """Another client, with sessions of its own, whose connection is open."""
    with Client(target) as opened:
        opened.runs.get("run")
        yield opened


@pytest.fixture
def leaver(target: str, rival: Client) -> Iterator[Client]:
    """Yield a client that leaves a stream; then check that the lease is free and no thread is left."""
    before = set(threading.enumerate())
    with Client(target) as opened:
        yield opened
        get_the_place(rival)
    left = [thread for thread in threading.enumerate() if thread not in before and thread.name == "lavant"]
    assert left == []


def get_the_place(client: Client) -> None:
    """Acquire the consumer's lease without taking it over; fail if that takes long."""
    began = time.monotonic()
    while time.monotonic() - began < LIMIT:
        with suppress(ConsumerBusy), client.runs.stream("run", consumer="ui") as stream:
            next(stream)
            return
    raise AssertionError("the place was not given back")


def opened(client: Client) -> RunStream:
    """A stream with the place, up to its last event."""
    stream = client.runs.stream("run", consumer="ui")
    for _ in RECORDED:
        next(stream)
    return stream


@forms
def test_by_break(leaver: Client, form: Form) -> None:
    form(leaver.runs.stream("run", consumer="ui"), lambda: True)


@forms
def test_by_an_exception(leaver: Client, form: Form) -> None:
    with pytest.raises(Left):
        form(leaver.runs.stream("run", consumer="ui"), leave)


@forms
def test_by_an_interrupt_in_a_handler(leaver: Client, form: Form) -> None:
    with pytest.raises(Interrupted):
        form(leaver.runs.stream("run", consumer="ui", on_event=interrupt), no)


@forms
def test_by_another_thread_that_closes_it(leaver: Client, form: Form) -> None:
    stream = leaver.runs.stream("run", consumer="ui")
    given = threading.Semaphore(0)

    def close_it() -> None:
        given.acquire()
        stream.close()

    def reached() -> bool:
        given.release()
        return False

    closer = threading.Thread(target=close_it)
    closer.start()
    with pytest.raises(StreamCut, match="closed"):
        form(stream, reached)
    closer.join()


def test_by_another_thread_while_it_waits(leaver: Client, rival: Client) -> None:
    stream = opened(leaver)
    closer = threading.Timer(0.2, stream.close)
    closer.start()
    with pytest.raises(StreamCut, match="closed"):
        next(stream)
    get_the_place(rival)
    closer.join()
    stream.close()


def test_by_control_c_while_it_waits(leaver: Client) -> None:
    stream = opened(leaver)
    waiting = threading.Timer(0.2, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012 - it may come at once
        waiting.start()
        next(stream)
    waiting.join()


def test_by_dropping_the_last_reference(leaver: Client) -> None:
    stream = opened(leaver)
    del stream


def test_the_place_is_held_until_then(leaver: Client, rival: Client) -> None:
    stream = opened(leaver)
    with pytest.raises(ConsumerBusy):
        next(rival.runs.stream("run", consumer="ui"))
    stream.close()
