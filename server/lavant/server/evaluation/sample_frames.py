"""SampleRunsResponse: the frames of a stream of samples."""

from collections.abc import Iterable

from lavant.server.evaluation.ledger import Sample
from lavant.server.streaming.frames import duration, timestamp
from lavant.v1.evaluation_service_pb2 import Sample as SentSample
from lavant.v1.evaluation_service_pb2 import SampleBatch, SampleRunsResponse, SamplesCaughtUp, SamplesOpened
from lavant.v1.event_service_pb2 import Heartbeat, StreamEnd, StreamEndReason
from lavant.v1.rule_pb2 import Rule, RuleProgress
from lavant.v1.run_pb2 import Run

Frame = SampleRunsResponse


def framed(token: bytes, frame: Frame) -> bytes:
    """A frame as it is sent, with its token."""
    frame.resume_token = token.decode()
    return frame.SerializeToString()


def opened(
    rule: Rule, *, fence: int, max_age: float, heartbeat_interval: float, lease: float, session_id: str
) -> Frame:
    """The first frame."""
    return Frame(
        opened=SamplesOpened(
            rule=rule,
            fence=fence,
            max_age=duration(max_age),
            heartbeat_interval=duration(heartbeat_interval),
            lease=duration(lease),
            session_id=session_id,
        )
    )


def samples(found: Iterable[tuple[Sample, Run]]) -> Frame:
    """Samples to judge, each with its run."""
    sent = [SentSample(run=run, attempt=sample.attempts, rule_revision=sample.revision) for sample, run in found]
    return Frame(samples=SampleBatch(samples=sent))


def heartbeat(server_ns: int) -> Frame:
    """A sign of life."""
    return Frame(heartbeat=Heartbeat(server_time=timestamp(server_ns)))


def caught_up(progress: RuleProgress, delay_ns: int | None) -> Frame:
    """There is nothing to hand out now; and how long until a delayed sample can be, if there are any."""
    delay = None if delay_ns is None else duration(delay_ns / 1e9)
    return Frame(caught_up=SamplesCaughtUp(progress=progress, next_retry_delay=delay))


def end(token: bytes, reason: "StreamEndReason.ValueType", retry_delay: float) -> bytes:
    """The last frame, as it is sent."""
    return framed(token, Frame(end=StreamEnd(reason=reason, reconnect=True, retry_delay=duration(retry_delay))))
