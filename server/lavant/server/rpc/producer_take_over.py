"""Record of a batch that takes a producer over from another principal."""

from asyncio import Future
from collections.abc import Callable

from lavant.server.store.ownership import Owner
from lavant.v1.event_service_pb2 import BatchReceipt


class ProducerTakeOver:
    """A take-over that a batch may be; `record` is called once if it is one.

    An engine may decide about a batch several times before it is stored, and may refuse it after all: what counts is
    the receipt. If nobody waits for that any more, the batch may be stored all the same, and a decision is enough, so
    that nobody hides a take-over by hanging up.
    """

    def __init__(self, record: Callable[[], None]) -> None:
        self._record = record
        self._is_decided = self._is_abandoned = self._is_recorded = False

    def noted_by(self, owner: Owner) -> Owner:
        """Return an owner of the batch that notes decisions here."""
        return owner._replace(on_take_over=self._decided)

    def done(self, receipt: "Future[BatchReceipt]") -> None:
        """Record the take-over if there is one, now that the batch has its receipt."""
        self._is_abandoned = receipt.cancelled()
        if self._is_decided and (self._is_abandoned or receipt.exception() is None):
            self._record_once()

    def _decided(self) -> None:
        self._is_decided = True
        if self._is_abandoned:
            self._record_once()

    def _record_once(self) -> None:
        if not self._is_recorded:
            self._is_recorded = True
            self._record()
