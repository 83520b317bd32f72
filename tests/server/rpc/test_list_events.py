"""ListEvents: the log in pages."""

import pytest

from lavant.v1.event_pb2 import Event, EventType
from lavant.v1.event_service_pb2 import ListEventsRequest, ListEventsResponse, StreamEventsRequest
from support.calls import append, create, ended_run, listed
from support.events import a_run_of, custom, message_finished, run_finished, run_started
from support.server import Server
from support.status import refused

TEXT, FINISHED = EventType.EVENT_TYPE_TEXT_DELTA, EventType.EVENT_TYPE_RUN_FINISHED


async def page(
    server: Server, token: str = "", size: int | None = None, *types: "EventType.ValueType"
) -> ListEventsResponse:
    """One page of the run named "run"."""
    request = ListEventsRequest(run_id="run", page_token=token, page_size=size or None, types=types)
    return await server.stubs.events.ListEvents(request)


def sequences(response: ListEventsResponse) -> list[int]:
    """The sequences of a page's events."""
    return [event.sequence for event in response.events]


@pytest.mark.parametrize("size", [1, 2, 7, 49, 50, 51, 1_000])
async def test_pages_follow_each_other_without_a_gap(server: Server, size: int) -> None:
    await create(server.stubs)
    events = a_run_of(50)
    for start in range(0, 50, 8):
        await append(server.stubs, events[start : start + 8], first=start + 1)

    found: list[int] = []
    token = ""
    while True:
        response = await page(server, token, size)
        assert len(response.events) == min(size, 50 - len(found))
        found += sequences(response)
        token = response.next_page_token
        if not token:
            break
    assert found == list(range(1, 51))


async def test_a_page_is_100_events_unless_said_otherwise(server: Server) -> None:
    await ended_run(server.stubs, size=101)
    first = await page(server)
    assert len(first.events) == 100
    assert sequences(await page(server, first.next_page_token)) == [101]


async def test_pages_of_a_live_run_end_and_continue_from_the_resume_token(server: Server) -> None:
    await create(server.stubs)
    empty = await page(server)
    assert (list(empty.events), empty.next_page_token) == ([], "")
    await append(server.stubs, [run_started(), custom()])
    first = await page(server, empty.resume_token)
    assert (sequences(first), first.next_page_token) == ([1, 2], "")
    nothing_new = await page(server, first.resume_token)
    assert (list(nothing_new.events), nothing_new.next_page_token) == ([], "")
    await append(server.stubs, [custom(), run_finished()], first=3)

    last = await page(server, nothing_new.resume_token)

    assert (sequences(last), last.next_page_token) == ([3, 4], "")


async def test_a_page_token_is_the_position_of_the_page(server: Server) -> None:
    await ended_run(server.stubs, size=10)
    first = await page(server, "", 4)
    assert first.next_page_token == first.resume_token


async def test_a_page_size_of_zero_is_refused(server: Server) -> None:
    await create(server.stubs)
    with refused("INVALID_FIELD", "page_size"):
        await server.stubs.events.ListEvents(ListEventsRequest(run_id="run", page_size=0))


async def test_a_page_that_ends_with_the_run_is_the_last(server: Server) -> None:
    await ended_run(server.stubs, size=10)
    first = await page(server, "", 9)
    assert first.next_page_token
    assert not (await page(server, first.next_page_token, 1)).next_page_token
    assert not (await page(server, "", 10)).next_page_token


async def test_a_filtered_list_pages_through_what_matches(server: Server) -> None:
    await create(server.stubs)
    middle = a_run_of(42, finished=False)
    await append(server.stubs, [*middle, message_finished(), *(custom() for _ in range(40)), run_finished()])

    first = await page(server, "", 30, TEXT, FINISHED)
    rest = await page(server, first.next_page_token, 30)  # the token remembers the types
    other = await page(server, first.next_page_token, 30, FINISHED)

    assert sequences(first) == list(range(3, 33))
    assert sequences(rest) == [*range(33, 43), 84]
    assert not rest.next_page_token
    assert sequences(other) == [84]


async def test_a_list_of_what_never_happened_is_empty_and_ends(server: Server) -> None:
    await ended_run(server.stubs, size=10)
    response = await page(server, "", 10, EventType.EVENT_TYPE_ROW_FINISHED)
    assert response == ListEventsResponse(resume_token=response.resume_token)


async def test_a_page_is_bounded_in_bytes_as_well(server: Server) -> None:
    await create(server.stubs)
    large = '"' + "x" * 300_000 + '"'
    events = [run_started(), *(custom(value_json=large) for _ in range(12)), run_finished()]
    for number, event in enumerate(events, 1):
        await append(server.stubs, [event], first=number)

    found: list[int] = []
    token, pages = "", 0
    while token or not pages:
        response = await page(server, token, 1_000)
        assert response.ByteSize() < 1_500_000
        found += sequences(response)
        token, pages = response.next_page_token, pages + 1
    assert found == list(range(1, 15))
    assert pages == 4


async def test_an_event_as_large_as_may_be_is_a_page(server: Server) -> None:
    await create(server.stubs)
    await append(server.stubs, [run_started()])
    await append(server.stubs, [custom(value_json='"' + "x" * ((1 << 20) - 200) + '"')], first=2)
    assert sequences(await page(server)) == [1, 2]


async def test_page_tokens_and_resume_tokens_are_interchangeable(server: Server) -> None:
    await ended_run(server.stubs, size=20)
    stored = await listed(server.stubs)
    first = await page(server, "", 8)

    stream = StreamEventsRequest(run_id="run", consumer_id="ui", resume_token=first.next_page_token)
    streamed: list[Event] = []
    tokens = []
    async for frame in server.stubs.events.StreamEvents(stream, timeout=20):
        streamed += frame.events.events
        tokens += [frame.opened.start_token, frame.resume_token]

    assert streamed == stored[8:]
    assert (await page(server, tokens[0])).events == stored[8:]
    assert await page(server, tokens[-1]) == ListEventsResponse(resume_token=tokens[-1])


async def test_a_token_of_another_run_is_refused(server: Server) -> None:
    await ended_run(server.stubs, "other", size=20)
    await create(server.stubs)
    other = await server.stubs.events.ListEvents(ListEventsRequest(run_id="other", page_size=3))
    with refused("RESUME_TOKEN_INVALID"):
        await page(server, other.next_page_token)


async def test_a_run_without_events_or_that_never_was(server: Server) -> None:
    with refused("RUN_NOT_FOUND"):
        await page(server)
    await create(server.stubs)
    assert not (await page(server)).events
