"""Events' texts, written once for all who read the same ones."""

import asyncio
from collections.abc import Sequence
from itertools import pairwise

from lavant.server.auth.signing import Signer
from lavant.server.http.sse import EventTexts, SSEFrames, event_of_run
from lavant.server.model import RunKey
from lavant.server.streaming.tokens import ResumeTokens, TokenIssuer
from lavant.v1.event_pb2 import Event
from lavant.v1.event_service_pb2 import EventBatch
from server.http.reading import parse

TOKENS = ResumeTokens(Signer({"k": b"k" * 32}), "epoch")


def token_issuer(run_id: str = "run", types: int = 0) -> TokenIssuer:
    return TOKENS.issuer(RunKey("default", run_id), types, 1)


def batch(*sequences: int) -> bytes:
    return EventBatch(events=[Event(sequence=number, event_id="e" * 100) for number in sequences]).SerializeToString()


async def encode(frames: SSEFrames, tokens: TokenIssuer, sequence: int, *batches: bytes) -> bytes:
    """A frame of events."""
    return frames.frame(tokens, sequence, await frames.events(tokens, sequence, batches))


class Counted:
    """Renders, and counts."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, event: Event) -> Sequence[tuple[str, str]]:
        self.count += 1
        return event_of_run(event)


async def test_what_many_read_is_written_once() -> None:
    counted = Counted()
    texts = EventTexts(counted)
    for number in range(50):
        frame = await encode(SSEFrames(texts, f"s{number}"), token_issuer(), 2, batch(1), batch(2))
        events, last_id = parse(frame)
        assert [event.last_id.partition("~")[2] for event in events] == [f"s{number}"] * 2
        assert TOKENS.read(last_id.partition("~")[0], RunKey("default", "run")).sequence == 2
    assert counted.count == 2


async def test_readers_without_a_name_share_the_bytes_themselves() -> None:
    texts = EventTexts(event_of_run)
    one, other = [await encode(SSEFrames(texts), token_issuer(), 2, batch(1, 2)) for _ in range(2)]
    assert one is other
    events, last_id = parse(one)
    assert len(events) == 2
    token, tilde, session = last_id.partition("~")
    assert (TOKENS.read(token, RunKey("default", "run")).sequence, tilde, session) == (2, "~", "")


async def test_the_same_bytes_of_another_run_or_filter_have_other_ids() -> None:
    texts = EventTexts(event_of_run)
    frames = {
        await encode(SSEFrames(texts, "s"), at, 1, batch(1))
        for at in (token_issuer(), token_issuer("other"), token_issuer(types=2), token_issuer())
    }
    assert len(frames) == 3


async def test_the_newest_texts_are_kept_and_no_more() -> None:
    counted = Counted()
    texts = EventTexts(counted, limit=5_000)
    for number in range(1, 101):
        await texts.of(token_issuer(), batch(number))
        await texts.of(token_issuer(), batch(1))  # is asked for again and again
    assert counted.count == 100
    await texts.of(token_issuer(), batch(100))
    assert counted.count == 100
    await texts.of(token_issuer(), batch(50))
    assert counted.count == 101


async def test_one_that_is_larger_than_all_is_written_all_the_same() -> None:
    texts = EventTexts(event_of_run, limit=10)
    for _ in range(2):
        assert len(parse(await encode(SSEFrames(texts, "s"), token_issuer(), 3, batch(1, 2, 3)))[0]) == 3
        await texts.of(token_issuer(), batch(4))


async def test_a_frame_without_events_is_empty() -> None:
    assert await encode(SSEFrames(EventTexts(event_of_run), "s"), token_issuer(), 1) == b""


async def test_long_text_is_written_in_slices_for_all_readers_at_once() -> None:
    counted = Counted()
    texts = EventTexts(counted)
    events = batch(*range(1, 2_001))
    readers = [asyncio.create_task(texts.of(token_issuer(), events)) for _ in range(3)]
    written: list[int] = []
    while not all(reader.done() for reader in readers):
        written.append(counted.count)
        await asyncio.sleep(0)
        if len(written) == 3:
            readers[0].cancel()
    assert counted.count == 2_000
    assert max(later - earlier for earlier, later in pairwise(written)) < 1_000
    one, other = [await reader for reader in readers[1:]]
    assert one is other
    assert len(parse(one)[0]) == 2_000
    assert await texts.of(token_issuer(), events) is one
    assert counted.count == 2_000
