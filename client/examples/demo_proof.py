"""What the demo proves, and how."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lavant.client import Event


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What the readers were given, what is stored, and where the faults hit."""

    stored: Sequence[Event]
    live: Sequence[Event]
    before_cut: Sequence[Event]
    after_cut: Sequence[Event]
    killed_at: int


def findings(evidence: Evidence) -> Iterator[tuple[str, bool]]:
    """Give each claim, and whether it holds."""
    stored, cut = evidence.stored, [*evidence.before_cut, *evidence.after_cut]
    last = len(stored)
    yield f"the log holds {last} events, numbered 1 to {last} without a gap", _numbers(stored) == [*range(1, last + 1)]
    yield "it begins with run_started and ends with run_finished, once", _is_sealed(stored)
    yield f"the server was killed in the middle, behind event {evidence.killed_at}", 0 < evidence.killed_at < last
    yield "the live reader got the same events, once each, byte for byte", _bytes(evidence.live) == _bytes(stored)
    split = f"{len(evidence.before_cut)} + {len(evidence.after_cut)}"
    yield f"the second reader was cut in the middle: {split} events", bool(evidence.before_cut and evidence.after_cut)
    yield "with its token it got the same events, once each, byte for byte", _bytes(cut) == _bytes(stored)
    yield "the text that was shown live is the text that was said", _shown(evidence.live) == _said(stored) != ""


def _numbers(events: Sequence[Event]) -> list[int]:
    return [event.sequence for event in events]


def _bytes(events: Sequence[Event]) -> list[bytes]:
    return [event.proto.SerializeToString(deterministic=True) for event in events]


def _is_sealed(events: Sequence[Event]) -> bool:
    types = [event.type for event in events]
    return types[:1] == ["run_started"] and types[-1:] == ["run_finished"] and types.count("run_finished") == 1


def _shown(events: Sequence[Event]) -> str:
    return "".join(event.data.text for event in events if event.type == "text_delta")


def _said(events: Sequence[Event]) -> str:
    messages = [event.data for event in events if event.type == "message_finished"]
    return "".join(part.text for message in messages for part in message.parts)
