"""The blocking client: what differs from the asynchronous one, which its code is made from."""

import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from lavant.client import AsyncClient, Client, Event, RunCancelled, RunFailed, RunState, StreamCut
from support.server import ServerProcess


@pytest.fixture
def blocking(server_process: ServerProcess) -> Iterator[Client]:
    """A blocking client of a server that can be killed."""
    with Client(server_process.target) as client:
        yield client


def test_the_whole_of_a_run(blocking: Client) -> None:
    with blocking.runs.start("weather-agent", input={"city": "Oslo"}, on_error="raise") as run:
        run.text("It is ")
        with run.tool("search_web", {"q": "Oslo"}) as tool:
            tool.result = -4
        with run.step("think"), run.message() as message:
            message.reasoning("hm")
            message.text("cold.")
        run.output = {"answer": "cold"}
    with blocking.runs.stream(run.id, consumer="ui") as stream:
        events = list(stream)
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert events == list(blocking.runs.events(run.id))
    assert blocking.runs.stream(run.id).text() == "It is cold."
    assert "".join(blocking.runs.stream(run.id).text_chunks) == "It is cold."
    assert [call.result for call in blocking.runs.stream(run.id).tool_calls] == [-4]
    assert blocking.runs.wait(run.id, timeout=10).state is RunState.SUCCEEDED
    assert [found.id for found in blocking.runs.list(names=["weather-agent"])] == [run.id]


def test_a_block_that_raises_fails_its_run(blocking: Client) -> None:
    with pytest.raises(ZeroDivisionError), blocking.runs.start("agent") as run:
        raise ZeroDivisionError("no")
    with pytest.raises(RunFailed, match="no"):
        blocking.runs.stream(run.id).result()


def test_a_run_is_cancelled_from_elsewhere(blocking: Client) -> None:
    def work() -> None:
        with blocking.runs.start("agent", run_id="r") as run:
            blocking.runs.cancel(run.id, "enough")
            run.wait_cancelled()
            run.raise_if_cancelled()

    with pytest.raises(RunCancelled, match="enough"):
        work()
    assert blocking.runs.get("r").state is RunState.CANCELLED


def test_many_threads_publish_into_one_run(blocking: Client) -> None:
    with blocking.runs.start("agent", on_error="raise") as run:

        def work(name: str) -> None:
            with run.step(name), run.message() as message:
                for number in range(100):
                    message.text(f"{name}{number} ")
            run.text(name)

        threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    spoken: dict[str, str] = {}
    for event in blocking.runs.stream(run.id):
        if event.type == "text_delta":
            spoken[event.data.message_id] = spoken.get(event.data.message_id, "") + event.data.text
    whole = {"".join(f"{name}{number} " for number in range(100)) for name in "abcd"}
    assert whole < set(spoken.values())


def test_leaving_gives_the_place_back_and_ends_the_threads(server_process: ServerProcess, blocking: Client) -> None:
    with blocking.runs.start("agent") as run:
        run.flush()
        with Client(server_process.target) as first:
            for _ in first.runs.stream(run.id, consumer="ui"):
                break
        with Client(server_process.target) as rival, rival.runs.stream(run.id, consumer="ui") as stream:
            assert next(stream).type == "run_started"
    assert not [thread.name for thread in threading.enumerate() if thread.name == "lavant"]


def test_a_stream_can_be_closed_from_another_thread(blocking: Client) -> None:
    with blocking.runs.start("agent") as run:
        run.flush()
        stream = blocking.runs.stream(run.id)
        assert next(stream).type == "run_started"
        closer = threading.Timer(0.0, stream.close)
        closer.start()
        with pytest.raises(StreamCut):
            next(stream)
        closer.join()


def test_a_closed_client_says_so(server_process: ServerProcess) -> None:
    client = Client(server_process.target)
    with closing(client), client.runs.start("agent") as run:
        run.flush()
    with pytest.raises(StreamCut):
        next(client.runs.stream(run.id))


def test_handlers_get_every_event(blocking: Client) -> None:
    with blocking.runs.start("agent") as run:
        run.text("x")
    seen: list[Event] = []
    events = list(blocking.runs.stream(run.id, on_event=seen.append))
    assert events
    assert seen == events


def test_an_asynchronous_handler_is_refused(blocking: Client) -> None:
    with blocking.runs.start("agent") as run:
        pass

    async def handler(event: Event) -> None:
        raise AssertionError(event)

    with pytest.raises(TypeError, match="AsyncClient"):
        list(blocking.runs.stream(run.id, on_event=handler))


async def test_asynchronous_handlers_are_bounded(client: AsyncClient) -> None:
    async with client.runs.start("agent") as run:
        await run.text("x")
    seen: list[str] = []

    async def handler(event: Event) -> None:
        seen.append(event.type)
        if event.type == "text_delta":
            await client.runs.start("never").wait_cancelled()

    with pytest.raises(TimeoutError):
        await client.runs.stream(run.id, on_event=[handler], handler_timeout=0.1).text()
    assert seen == ["run_started", "message_started", "text_delta"]
