"""What can go wrong, as exceptions.

* LavantError
  x RunNotSucceeded            the run ended, but not well; carries its result
    + RunFailed
    + RunCancelled
    + RunTimedOut
    + RunAbandoned
  x StreamError                a stream that gives no more events, though the run may go on
    + StreamCut                  it could not be resumed in time, or was closed by its reader
    + StreamDisplaced            another stream of the same consumer took its place
    + StaleAttempt               a newer attempt of the same session is streaming
    + SlowConsumer
    + ConsumerBusy               another session holds the consumer's place
    + ResumeTokenInvalid
    + StoreEpochChanged
    + StreamTimeout              (also a TimeoutError)
    + IdleTimeout                (also a TimeoutError)
  x ProducerError              events that will not become durable
    + ProducerGap
    + ProducerFenced
    + ProducerConflict
    + ProducerOverloaded         the queue is full, or the server was gone for too long
  x RunNotFound
  x RunExists
  x RunSealed
  x RunNotEnded
  x WaitTimeout                (also a TimeoutError)
  x InvalidField
  x QuotaExceeded
  x Unauthenticated
  x PermissionDenied
  x Unavailable
  x DataLoss
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import grpc

if TYPE_CHECKING:
    from lavant.client._models import FieldViolation, RunResult


class LavantError(Exception):
    """The base of everything that lavant raises.

    `reason` is the contract's ErrorReason without its prefix, or None where the server gave none;
    `code` is the status code; `retry_after` is in seconds; `metadata` is what else the server told.
    """

    default_reason: ClassVar[str | None] = None

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        code: grpc.StatusCode | None = None,
        retry_after: float | None = None,
        metadata: Mapping[str, str] | None = None,
        violations: "tuple[FieldViolation, ...]" = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or self.default_reason
        self.code = code
        self.retry_after = retry_after
        self.metadata = dict(metadata or {})
        self.violations = violations


class RunNotSucceeded(LavantError):
    """The run ended in another state than SUCCEEDED; `result` tells how."""

    def __init__(self, result: "RunResult") -> None:
        detail = result.error.message if result.error else ""
        super().__init__(f"run {result.run_id} {result.state.value}" + (f": {detail}" if detail else ""))
        self.result = result


class RunFailed(RunNotSucceeded):
    """The run ended by an error."""


class RunCancelled(RunNotSucceeded):
    """The run ended because someone asked."""


class RunTimedOut(RunNotSucceeded):
    """The run's own time limit passed."""


class RunAbandoned(RunNotSucceeded):
    """The server ended the run because its producer fell silent."""


class StreamError(LavantError):
    """A stream gives no more events. It says nothing about how the run ended."""


class StreamCut(StreamError):
    """The connection was lost and not regained in time, or the stream was closed. The token still works."""


class StreamDisplaced(StreamError):
    """Another stream of this consumer took this one's place."""

    default_reason = "STREAM_DISPLACED"


class StaleAttempt(StreamError):
    """A newer attempt of the same session is already streaming."""

    default_reason = "STALE_ATTEMPT"


class SlowConsumer(StreamError):
    """The reader accepted nothing for too long. The library resumes by itself."""

    default_reason = "SLOW_CONSUMER"


class ConsumerBusy(StreamError):
    """Another session streams this run as this consumer: wait for `retry_after` seconds, or take over."""

    default_reason = "CONSUMER_BUSY"


class ResumeTokenInvalid(StreamError):
    """The resume token is damaged, forged, or of another run. Begin anew."""

    default_reason = "RESUME_TOKEN_INVALID"


class StoreEpochChanged(StreamError):
    """The resume token is of another life of the store. Begin anew."""

    default_reason = "STORE_EPOCH_CHANGED"


class StreamTimeout(StreamError, TimeoutError):
    """The stream's own `timeout` passed before it came to its end."""


class IdleTimeout(StreamError, TimeoutError):
    """No event came for the stream's own `idle_timeout`."""


class ProducerError(LavantError):
    """Events of a producer will not become durable."""


class ProducerGap(ProducerError):
    """The server misses events before these, and they are no longer held here."""

    default_reason = "PRODUCER_GAP"


class ProducerFenced(ProducerError):
    """A newer epoch of this producer is at work."""

    default_reason = "PRODUCER_FENCED"


class ProducerConflict(ProducerError):
    """This producer sequence was stored with other content."""

    default_reason = "PRODUCER_CONFLICT"


class ProducerOverloaded(ProducerError):
    """The queue stayed full, or its events could not be made durable in time."""


class RunNotFound(LavantError):
    """No such run, or not yours."""

    default_reason = "RUN_NOT_FOUND"


class RunExists(LavantError):
    """The run_id is taken by a run with other settings."""

    default_reason = "RUN_EXISTS"


class RunSealed(LavantError):
    """The run has ended; nothing follows."""

    default_reason = "RUN_SEALED"


class RunNotEnded(LavantError):
    """The run has not ended yet."""

    default_reason = "RUN_NOT_ENDED"


class WaitTimeout(LavantError, TimeoutError):
    """The run did not end within the time given. It goes on."""


class InvalidField(LavantError):
    """A field is missing, malformed or too large; `violations` says which and why."""

    default_reason = "INVALID_FIELD"


class QuotaExceeded(LavantError):
    """Too many streams or calls, or no room to store."""

    default_reason = "QUOTA_EXCEEDED"


class Unauthenticated(LavantError):
    """No credentials, or not valid ones."""

    default_reason = "UNAUTHENTICATED"


class PermissionDenied(LavantError):
    """The credentials do not allow it."""

    default_reason = "PERMISSION_DENIED"


class Unavailable(LavantError):
    """The server cannot be reached, is starting or draining, or has lost its store."""

    default_reason = "UNAVAILABLE"


class DataLoss(LavantError):
    """A stored record is damaged. Nothing wrong is ever served."""

    default_reason = "DATA_LOSS"
