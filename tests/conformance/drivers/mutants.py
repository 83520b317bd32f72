"""Wrong clients: the Python client with one mistake each, and the cases that must find it.

`python_client.py --mutant NAME` is such a client.
"""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import grpc

from lavant.client import LavantError, ProducerFenced, QuotaExceeded, Run, StaleAttempt, StreamDisplaced
from lavant.client._async import event_stream, publisher, reconnect, run_stream, sender, subscription, transport
from lavant.client._async.api import runs
from lavant.client._async.authorization import Authorization, _retried
from lavant.client._publishing.outbox import Outbox
from lavant.client._reading import plan
from lavant.client._wire import status
from lavant.v1.event_service_pb2 import ProducerBatch, StreamEventsRequest


@dataclass(frozen=True, slots=True)
class Mutant:
    """A mistake: `patch` makes it, and every one of `cases` finds it."""

    patch: Callable[[], None]
    cases: tuple[str, ...]


def _set(owner: Any, **attributes: Any) -> Callable[[], None]:
    def patch() -> None:
        for name, value in attributes.items():
            setattr(owner, name, value)

    return patch


def _wrap(owner: Any, name: str, wrapper: Callable[..., Any]) -> Callable[[], None]:
    """Return a patch by which a function is called as `wrapper(original, ...)`."""
    original = getattr(owner, name)
    return _set(owner, **{name: lambda *arguments, **named: wrapper(original, *arguments, **named)})


def _retries(decide: Callable[[LavantError], bool | None]) -> Callable[[], None]:
    """Return a patch by which `decide` says whether an error means a cut; None leaves that to the client."""
    original = status.is_cut

    def is_cut(error: LavantError) -> bool:
        decided = decide(error)
        return original(error) if decided is None else decided

    def patch() -> None:
        for module in (transport, sender, reconnect):
            module.is_cut = is_cut  # type: ignore[attr-defined]

    return patch


def _retries_kind(kind: type[LavantError]) -> Callable[[], None]:
    return _retries(lambda error: True if isinstance(error, kind) else None)


def _retries_codes(*codes: grpc.StatusCode) -> Callable[[], None]:
    return _retries(lambda error: True if error.reason is None and error.code in codes else None)


def _ends_at(code: grpc.StatusCode) -> Callable[[], None]:
    return _retries(lambda error: False if error.reason is None and error.code is code else None)


def _requests(change: Callable[..., None]) -> Callable[[], None]:
    """Return a patch by which `change(plan, request, opened)` changes the requests of streams."""

    def request(original: Any, self: plan.StreamPlan, attempt: int, token: str, *, opened: bool) -> StreamEventsRequest:
        made: StreamEventsRequest = original(self, attempt, token, opened=opened)
        change(self, made, opened)
        return made

    return _wrap(plan.StreamPlan, "request", request)


def _first_attempt(_: plan.StreamPlan, request: StreamEventsRequest, opened: bool) -> None:
    request.attempt = 1


def _take_over(asked: plan.StreamPlan, request: StreamEventsRequest, opened: bool) -> None:
    request.take_over = asked.take_over


def _forget_settings(_: plan.StreamPlan, request: StreamEventsRequest, opened: bool) -> None:
    if opened:
        request.ClearField("types")
        request.ClearField("deltas")


def _start_again(asked: plan.StreamPlan, request: StreamEventsRequest, opened: bool) -> None:
    if asked.start == "now":
        request.start = plan._STARTS["now"]


def _tokens_of_events(original: Any, self: Any, frame: Any) -> None:
    kept = self._token
    original(self, frame)
    if not frame.events.events:
        self._token = kept


async def _ends_with_call(original: Any, self: Any) -> Any:
    frame = await original(self)
    self._ended = frame is None
    return frame


async def _always_reconnects(original: Any, self: Any, end: Any) -> None:
    end.reconnect = True
    await original(self, end)


async def _never_reconnects(original: Any, self: Any, end: Any) -> None:
    end.reconnect = False
    await original(self, end)


async def _without_delay(original: Any, self: Any, error: LavantError, at_most: float | None = None) -> None:
    error.retry_after = None
    await original(self, error, at_most)


def _rebatch(self: Outbox) -> None:
    with self._lock:
        self._recall()


def _resend_without_settings(original: Any, self: Outbox) -> None:
    for batch, _ in self._unacked:
        batch.ClearField("create")
    original(self)


def _leave_a_gap(original: Any, self: Outbox) -> ProducerBatch:
    batch: ProducerBatch = original(self)
    batch.first_producer_sequence += batch.first_producer_sequence > 1
    return batch


async def _is_durable(*_: Any) -> bool:
    return True


def _silent_sender(original: Any, *arguments: Any, heartbeat: float, **named: Any) -> None:
    original(*arguments, heartbeat=1_000.0, **named)


def _known_events(original: Any, found: Any, token: str) -> Any:
    return original((event for event in found if event.WhichOneof("payload")), token)


async def _first_page(original: Any, self: Any, method: Any, request: Any) -> AsyncIterator[Any]:
    async for page in original(self, method, request):
        yield page
        return


async def _wait_once(connection: Any, run_id: str, timeout: float | None) -> Any:
    return Run.from_proto((await connection.wait_run(run_id, 5, 5)).run)


class _AnyDomain(str):
    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = str.__hash__


MUTANTS: dict[str, Mutant] = {
    "position_covers_what_is_not_handled": Mutant(
        _set(event_stream.EventStream, resume_token=property(lambda self: self._frame_token)),
        ("position_of_handled_events",),
    ),
    "token_of_frames_with_events": Mutant(
        _wrap(subscription.Subscription, "_accept", _tokens_of_events), ("token_of_heartbeat", "newer_frames")
    ),
    "attempt_not_raised": Mutant(_requests(_first_attempt), ("attempts_rise", "cut_unavailable")),
    "one_session_for_all_readers": Mutant(_set(plan, new_id=lambda: "session"), ("attempts_rise",)),
    "take_over_with_every_call": Mutant(_requests(_take_over), ("take_over_once",)),
    "settings_with_first_call_only": Mutant(_requests(_forget_settings), ("settings_of_every_call",)),
    "start_now_with_every_call": Mutant(_requests(_start_again), ("start_now",)),
    "reconnects_when_displaced": Mutant(_retries_kind(StreamDisplaced), ("displaced_reader",)),
    "reconnects_when_stale": Mutant(_retries_kind(StaleAttempt), ("stale_attempt",)),
    "reconnects_without_details": Mutant(
        _retries_codes(grpc.StatusCode.ABORTED, grpc.StatusCode.FAILED_PRECONDITION), ("details_removed",)
    ),
    "reconnects_after_defects": Mutant(_retries_codes(grpc.StatusCode.INTERNAL), ("defect_of_server",)),
    "reconnects_with_unknown_reasons": Mutant(
        _retries(lambda error: True if error.reason == "LATER_REASON" else None), ("error_of_newer_server",)
    ),
    "ends_when_cancelled_by_proxy": Mutant(_ends_at(grpc.StatusCode.CANCELLED), ("cut_cancelled",)),
    "ends_at_deadline_of_proxy": Mutant(_ends_at(grpc.StatusCode.DEADLINE_EXCEEDED), ("cut_deadline",)),
    "ends_when_reset": Mutant(_set(status, _CUT_TEXTS=()), ("cut_reset", "cut_stream_removed")),
    "ends_without_end": Mutant(_wrap(subscription.Subscription, "_read", _ends_with_call), ("cut_without_end",)),
    "ends_at_planned_ends": Mutant(
        _wrap(subscription.Subscription, "_finish_call", _never_reconnects), ("end_of_age", "newer_end")
    ),
    "reconnects_after_every_end": Mutant(
        _wrap(subscription.Subscription, "_finish_call", _always_reconnects), ("end_is_final",)
    ),
    "ignores_retry_delay": Mutant(
        _wrap(reconnect.Reconnect, "pause", _without_delay), ("end_of_drain", "error_unavailable")
    ),
    "does_not_back_off": Mutant(_set(status.Backoff, next=lambda *_: 0.02), ("backoff_grows",)),
    "has_no_watchdog": Mutant(_set(subscription, MISSED_HEARTBEATS=1_000), ("silent_connection",)),
    "keeps_silent_connection": Mutant(_set(transport.Channels, retire=lambda *_: None), ("silent_connection",)),
    "drops_unknown_events": Mutant(_wrap(event_stream, "views", _known_events), ("newer_events",)),
    "believes_foreign_details": Mutant(_set(status, ERROR_DOMAIN=_AnyDomain()), ("foreign_details",)),
    "batches_again_after_cut": Mutant(_set(Outbox, rewind=_rebatch), ("resent_byte_for_byte",)),
    "settings_with_first_batch_only": Mutant(
        _wrap(Outbox, "rewind", _resend_without_settings), ("create_until_receipt", "resent_byte_for_byte")
    ),
    "leaves_gaps_in_numbers": Mutant(_wrap(Outbox, "_new_batch", _leave_a_gap), ("numbered_without_gaps",)),
    "reports_durable_without_receipt": Mutant(
        _set(publisher.Publisher, wait_durable=_is_durable), ("flush_means_durable",)
    ),
    "is_silent_without_events": Mutant(_wrap(sender.Sender, "__init__", _silent_sender), ("producer_heartbeat",)),
    "fails_at_gaps": Mutant(_set(Outbox, holds=lambda *_: False), ("gap_that_is_kept",)),
    "ignores_lost_events": Mutant(_set(Outbox, holds=lambda *_: True), ("gap_that_is_lost",)),
    "publishes_when_fenced": Mutant(_retries_kind(ProducerFenced), ("rejected_fenced",)),
    "fails_when_store_is_full": Mutant(
        _retries(lambda error: False if isinstance(error, QuotaExceeded) else None), ("quota_that_passes",)
    ),
    "keeps_refused_credential": Mutant(
        _set(Authorization, explain=lambda self, error, sent: error), ("credential_that_is_refused",)
    ),
    "retries_refused_credentials": Mutant(
        _set(Authorization, explain=lambda self, error, sent: _retried(error)), ("credential_that_stays_refused",)
    ),
    "lists_first_page_only": Mutant(
        _wrap(transport.Connection, "pages", _first_page), ("every_page_of_runs", "every_page_of_events")
    ),
    "waits_once": Mutant(_set(runs, wait_for_end=_wait_once), ("waited_run",)),
    "takes_failure_for_success": Mutant(_set(run_stream, raise_unless_succeeded=lambda _: None), ("result_of_run",)),
}
