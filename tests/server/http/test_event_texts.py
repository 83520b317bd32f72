"""Events' texts, written once for all who read the same ones."""

from collections.abc import Sequence

from lavant.server.http.sse import EventTexts, SSEFrames, event_of_run
from lavant.server.model import RunKey
from lavant.server.streaming.signing import Signer
from lavant.server.streaming.tokens import Bookmark, ResumeTokens
from lavant.v1.event_pb2 import Event
from lavant.v1.event_service_pb2 import EventBatch
from server.http.reading import parse

TOKENS = ResumeTokens(Signer({"k": b"k" * 32}), "epoch")


def bookmark(run_id: str = "run", types: int = 0) -> Bookmark:
    return TOKENS.bookmark(RunKey("default", run_id), types, 1)


def batch(*sequences: int) -> bytes:
    return EventBatch(events=[Event(sequence=number, event_id="e" * 100) for number in sequences]).SerializeToString()


class Counted:
    """Renders, and counts."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, event: Event) -> Sequence[tuple[str, str]]:
        self.count += 1
        return event_of_run(event)


def test_what_many_read_is_written_once() -> None:
    counted = Counted()
    texts = EventTexts(counted)
    for number in range(50):
        frame = SSEFrames(texts, f"s{number}").events_frame(bookmark(), 2, (batch(1), batch(2)))
        events, last_id = parse(frame)
        assert [event.last_id.partition("~")[2] for event in events] == [f"s{number}"] * 2
        assert TOKENS.read(last_id.partition("~")[0], RunKey("default", "run")).sequence == 2
    assert counted.count == 2


def test_readers_without_a_name_share_the_bytes_themselves() -> None:
    texts = EventTexts(event_of_run)
    one, other = (SSEFrames(texts).events_frame(bookmark(), 2, (batch(1, 2),)) for _ in range(2))
    assert one is other
    events, last_id = parse(one)
    assert len(events) == 2
    token, tilde, session = last_id.partition("~")
    assert (TOKENS.read(token, RunKey("default", "run")).sequence, tilde, session) == (2, "~", "")


def test_the_same_bytes_of_another_run_or_filter_have_other_ids() -> None:
    texts = EventTexts(event_of_run)
    frames = {
        SSEFrames(texts, "s").events_frame(at, 1, (batch(1),))
        for at in (bookmark(), bookmark("other"), bookmark(types=2), bookmark())
    }
    assert len(frames) == 3


def test_the_newest_texts_are_kept_and_no_more() -> None:
    counted = Counted()
    texts = EventTexts(counted, limit=5_000)
    for number in range(1, 101):
        texts.of(bookmark(), batch(number))
        texts.of(bookmark(), batch(1))  # is asked for again and again
    assert counted.count == 100
    texts.of(bookmark(), batch(100))
    assert counted.count == 100
    texts.of(bookmark(), batch(50))
    assert counted.count == 101


def test_one_that_is_larger_than_all_is_written_all_the_same() -> None:
    texts = EventTexts(event_of_run, limit=10)
    for _ in range(2):
        assert len(parse(SSEFrames(texts, "s").events_frame(bookmark(), 3, (batch(1, 2, 3),)))[0]) == 3
        texts.of(bookmark(), batch(4))


def test_a_frame_without_events_is_empty() -> None:
    assert SSEFrames(EventTexts(event_of_run), "s").events_frame(bookmark(), 1, ()) == b""
