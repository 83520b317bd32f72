"""Readers that were cut off, wherever it was, and ids that were never issued."""

import asyncio
import base64
import json
from collections.abc import Iterable
from typing import Any

import httpx
import pytest

from lavant.v1.event_pb2 import Event
from lavant.v1.run_pb2 import RunKind
from server.http.reading import Sent, parse, read, read_all
from support.calls import append, create
from support.events import (
    custom,
    message_finished,
    message_started,
    run_finished,
    run_started,
    step_finished,
    step_started,
    text_delta,
)
from support.server import Server, serving
from support.streams import delete

RUN, EVALUATION = "/api/v1/runs/run/stream", "/api/v1/evaluations/run/stream"
HOSTILE = 'a\r\nb\n\nevent: end\ndata: {}\nid: x\n\r\r\u2028\u2029\x85\x00\ufeff\U0001f600 é \\ " </script>'
CONTROL = {"opened", "caught_up", "end"}
SHOWN: list[dict[str, Any]] = [
    {},
    {"deltas": "merged"},
    {"deltas": "none"},
    {"type": ["text_delta", "run_finished"]},
    {"type": ["step_started", "step_finished"]},
    {"type": "text_delta", "deltas": "merged"},
]


async def recorded(server: Server) -> None:
    """A run, in several batches, with text that would end lines and events."""
    deltas = [text_delta(word) for word in ("It ", HOSTILE, "is ", "cold")]
    batches: list[list[Event]] = [
        [run_started(json.dumps(HOSTILE)), message_started(), *deltas],
        [step_started(), text_delta("1"), text_delta("2"), step_finished()],
        [custom("acme.note", json.dumps("x" * 1_000_000)), text_delta("3"), message_finished(), run_finished()],
    ]
    await create(server.stubs, kind=RunKind.RUN_KIND_EVALUATION, labels={"hostile": "\u2028\ufeff</script>"})
    first = 1
    for batch in batches:
        await append(server.stubs, batch, first=first)
        first += len(batch)


def shown(events: Iterable[Sent]) -> list[tuple[str, str]]:
    return [(event.name, event.data) for event in events if event.name not in CONTROL]


async def rest(web: httpx.AsyncClient, path: str, last_id: str, asked: dict[str, Any]) -> list[tuple[str, str]]:
    """What a resume shows; nothing if there is nothing more."""
    async with web.stream("GET", path, headers={"Last-Event-ID": last_id}, params=asked) as response:
        assert response.status_code in (200, 204)
        return shown([event async for event in read(response)])


@pytest.mark.parametrize("asked", SHOWN)
async def test_any_id_resumes_at_the_very_next_event(
    server: Server, web: httpx.AsyncClient, asked: dict[str, Any]
) -> None:
    await recorded(server)
    whole = await read_all(web, RUN, **asked)
    assert shown(whole)
    for index, event in enumerate(whole):
        assert await rest(web, RUN, event.last_id, asked) == shown(whole[index + 1 :]), event.name
    assert (await web.get(RUN, params=asked, headers={"Last-Event-ID": whole[-1].last_id})).status_code == 204


@pytest.mark.parametrize("asked", SHOWN[1:])
async def test_the_filter_may_come_with_the_id_alone(
    server: Server, web: httpx.AsyncClient, asked: dict[str, Any]
) -> None:
    await recorded(server)
    whole = await read_all(web, RUN, **asked)
    types = {"deltas": asked["deltas"]} if "deltas" in asked else {}
    assert await rest(web, RUN, whole[1].last_id, types) == shown(whole[2:])


@pytest.mark.parametrize(("path", "asked"), [(RUN, {}), (RUN, {"deltas": "merged"}), (EVALUATION, {})])
async def test_a_stream_cut_at_any_byte_is_whole_after_the_resume(
    server: Server, web: httpx.AsyncClient, path: str, asked: dict[str, Any]
) -> None:
    await recorded(server)
    body = (await web.get(path, params=asked)).content
    whole = shown(parse(body)[0])
    rests: dict[str, list[tuple[str, str]]] = {"": whole}
    lines = body.split(b"\n")
    ends = [sum(len(line) + 1 for line in lines[:count]) for count in range(len(lines) + 1)]
    for cut in sorted({end + shift for end in ends for shift in (-2, -1, 0, 1, 5) if 0 <= end + shift <= len(body)}):
        seen, last_id = parse(body[:cut])
        if last_id not in rests:
            rests[last_id] = await rest(web, path, last_id, asked)
        begun = shown(seen)
        # The status of an evaluation's end has no id of its own: it is sent again, before what follows it.
        again = begun[-1:] if begun and path == EVALUATION and rests[last_id][:1] == begun[-1:] else []
        assert begun[: len(begun) - len(again)] + rests[last_id] == whole, body[max(0, cut - 80) : cut]
    assert len(rests) > 3


@pytest.mark.parametrize("asked", [{}, {"start": "now"}, {"deltas": "merged"}, {"type": "text_delta"}])
async def test_nothing_that_happens_meanwhile_is_missed(
    server: Server, web: httpx.AsyncClient, asked: dict[str, Any]
) -> None:
    await create(server.stubs)
    await append(server.stubs, [run_started(), message_started()])
    texts, last_id = [], ""
    for number in range(8):
        headers = {"Last-Event-ID": last_id} if last_id else {}
        async with web.stream("GET", RUN, params={**asked, "consumer": "ui"}, headers=headers) as response:
            async for event in read(response):
                last_id = event.last_id
                if event.name == "text_delta":
                    texts.append(json.loads(event.data)["text_delta"]["text"])
                if event.name == "caught_up":
                    break
        await append(server.stubs, [text_delta(f"{number} ")], first=3 + number)
    assert "".join(texts) == "0 1 2 3 4 5 6 "


async def test_a_look_at_the_head_ends_without_anything_new(server: Server, web: httpx.AsyncClient) -> None:
    await create(server.stubs)
    await append(server.stubs, [run_started()])
    looked = await read_all(web, RUN, stop="head")
    assert json.loads(looked[-1].data) == {"reason": "HEAD_REACHED", "reconnect": False}
    headers = {"Last-Event-ID": looked[-1].last_id}
    assert (await web.get(RUN, params={"stop": "head"}, headers=headers)).status_code == 204
    await append(server.stubs, [message_started()], first=2)
    assert [name for name, _ in await rest(web, RUN, looked[-1].last_id, {"stop": "head"})] == ["message_started"]


async def some_id(web: httpx.AsyncClient) -> str:
    return (await read_all(web, RUN))[2].last_id


async def refused(web: httpx.AsyncClient, last_id: str | bytes, status: int = 400) -> None:
    """Both ways to send an id must be refused alike, on both streams and for HEAD."""
    given = last_id if isinstance(last_id, bytes) else last_id.encode()
    for path in (RUN, EVALUATION):
        for method in ("GET", "HEAD"):
            answers = [
                await web.request(method, path, headers=[(b"Last-Event-ID", given)]),
                await web.request(method, path, params={"last_event_id": given.decode("latin-1")}),
            ]
            assert [answer.status_code for answer in answers] == [status, status], given
            if method == "GET":
                assert all(given.decode("latin-1") not in answer.text for answer in answers)


async def test_an_id_with_any_bit_flipped_is_refused(server: Server, web: httpx.AsyncClient) -> None:
    await recorded(server)
    token, _, rest = (await some_id(web)).partition(".")
    data = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    for place in range(len(data)):
        flipped = bytearray(data)
        flipped[place] ^= 1 << place % 8
        hostile = base64.urlsafe_b64encode(flipped).rstrip(b"=").decode()
        answer = await web.get(RUN, headers={"Last-Event-ID": f"{hostile}.{rest}"})
        assert answer.status_code == 400, place


@pytest.mark.parametrize(
    "hostile",
    [
        "x", "~", "~abc", "~~", "a" * 6_000, "../../etc/passwd", "%00", "' OR 1=1 --",
        "<img src=x>", "é\u00ff".encode("latin-1"), "é".encode(), b"\xff\xfe", "null", "0", "-1", "{}", "a b",
    ],
)  # fmt: skip
async def test_an_id_that_was_never_issued_is_refused(
    server: Server, web: httpx.AsyncClient, hostile: str | bytes
) -> None:
    await recorded(server)
    await refused(web, hostile)


async def test_id_with_another_position_resumes_there(server: Server, web: httpx.AsyncClient) -> None:
    await recorded(server)
    whole = await read_all(web, RUN)
    token, _, position = whole[5].last_id.partition(".")
    session = position.partition("~")[2]
    for index in range(1, 15):
        assert await rest(web, RUN, f"{token}.{index}~{session}", {}) == shown(whole[index + 1 :])


@pytest.mark.parametrize("position", ["", "-1", "+1", "01", "1.1", "1e1", " 1", "x", "\u0661", "15", "99999999999"])
async def test_id_with_a_position_that_is_none_is_refused(
    server: Server, web: httpx.AsyncClient, position: str
) -> None:
    await recorded(server)
    token, _, rest = (await some_id(web)).partition(".")
    session = rest.partition("~")[2]
    answer = await web.get(RUN, params={"last_event_id": f"{token}.{position}~{session}"})
    assert (answer.status_code, answer.json()["error"]["reason"]) == (400, "RESUME_TOKEN_INVALID")


@pytest.mark.parametrize("hostile", ["\x00", "a\x00b", "a\r\nX: y", "\n", "\r", "{token}\n", "{token}\x00", "\u2028"])
async def test_an_id_that_no_header_can_hold_is_refused(server: Server, web: httpx.AsyncClient, hostile: str) -> None:
    await recorded(server)
    given = hostile.replace("{token}", (await some_id(web)).partition("~")[0])
    assert (await web.get(RUN, params={"last_event_id": given})).status_code == 400


@pytest.mark.parametrize("value", [b"a\x00b", b"a\rb", b"a" * 10_000, b"a" * 40_000, b"\x7f\x01"])
async def test_an_id_in_a_raw_header_is_refused(server: Server, web: httpx.AsyncClient, value: bytes) -> None:
    await recorded(server)
    host, port = server.app.http_address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"GET {RUN} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nLast-Event-ID: ".encode() + value)
    writer.write(b"\r\n\r\n")
    status = await reader.readline()
    writer.close()
    assert status.split()[1] in (b"400", b"431"), status


@pytest.mark.parametrize("session", ["x" * 129, "a\nb", "\x7f", "é\x00"])
async def test_a_session_with_control_characters_or_too_long_is_refused(
    server: Server, web: httpx.AsyncClient, session: str
) -> None:
    await recorded(server)
    token, _, _ = (await some_id(web)).partition("~")
    for asked in ({"last_event_id": f"{token}~{session}"}, {"session": session}):
        answer = await web.get(RUN, params=asked)
        assert (answer.status_code, answer.json()["error"]["fields"][0]["path"]) == (400, "session_id")


@pytest.mark.parametrize("session", ["<b>", "a b", "é", "..", "a/b", "~over", "%41", "alice@example.org"])
async def test_a_session_of_any_characters_resumes_as_the_same_reader(
    server: Server, web: httpx.AsyncClient, session: str
) -> None:
    await create(server.stubs)
    await append(server.stubs, [run_started()])
    asked = {"consumer": "ui", "session": session}
    async with web.stream("GET", RUN, params=asked) as response:
        events = read(response)
        while (event := await anext(events)).name != "run_started":
            pass
        async with web.stream("GET", RUN, params={"consumer": "ui"}, headers={"Last-Event-ID": event.last_id}) as again:
            assert again.status_code == 200


async def test_an_id_of_another_run_is_refused(server: Server, web: httpx.AsyncClient) -> None:
    await recorded(server)
    await create(server.stubs, "other")
    await append(server.stubs, [run_started()], run_id="other")
    other = (await read_all(web, "/api/v1/runs/other/stream", stop="head"))[1].last_id
    await refused(web, other)


async def test_an_id_of_an_earlier_run_is_refused(server: Server, web: httpx.AsyncClient) -> None:
    await recorded(server)
    earlier = await some_id(web)
    await delete(server.stubs)
    await recorded(server)
    await refused(web, earlier)


async def test_an_id_of_another_store_is_refused(tmp_path: Any) -> None:
    ids: list[str] = []
    for store, keys in (("a", {}), ("b", {}), ("c", {"k": "ab" * 32}), ("d", {"k": "ab" * 32})):
        (tmp_path / store).mkdir()
        async with (
            serving(tmp_path / store, http="127.0.0.1:0", token_keys=keys) as server,
            httpx.AsyncClient(base_url=f"http://{server.app.http_address}") as web,
        ):
            await recorded(server)
            for earlier, status in zip(ids, (400, 400, 410), strict=False):
                assert (await web.get(RUN, headers={"Last-Event-ID": earlier})).status_code == status
            ids.append(await some_id(web))
