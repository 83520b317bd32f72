"""Take-overs of producers: recorded once, when the batch is stored or may be."""

import asyncio
from collections.abc import Callable

import pytest

from lavant.server.errors import unavailable
from lavant.server.rpc.producer_take_over import ProducerTakeOver
from lavant.server.store.ownership import Owner
from lavant.v1.event_service_pb2 import BatchReceipt

Receipt = asyncio.Future[BatchReceipt]
OUTCOMES: dict[str, Callable[[Receipt], object]] = {
    "stored": lambda receipt: receipt.set_result(BatchReceipt()),
    "refused": lambda receipt: receipt.set_exception(unavailable("the store is out of reach")),
    "abandoned": lambda receipt: receipt.cancel(),
}


@pytest.mark.parametrize(
    ("decisions", "outcome", "later_decisions", "recorded"),
    [
        (0, "stored", 0, 0),
        (1, "stored", 0, 1),
        (2, "stored", 0, 1),
        (2, "refused", 0, 0),
        (1, "abandoned", 2, 1),
        (0, "abandoned", 2, 1),
        (0, "abandoned", 0, 0),
    ],
)
async def test_take_over_is_recorded_once_if_it_is_stored(
    decisions: int, outcome: str, later_decisions: int, recorded: int
) -> None:
    records = list[None]()
    take_over = ProducerTakeOver(lambda: records.append(None))
    owner = take_over.noted_by(Owner("carol", may_take_over=True))
    receipt = Receipt()
    receipt.add_done_callback(take_over.done)

    def decide(times: int) -> None:
        for _ in range(times):
            owner.check("alice", "producer p", "producer_id")

    decide(decisions)
    assert not records
    OUTCOMES[outcome](receipt)
    await asyncio.sleep(0)
    decide(later_decisions)
    assert len(records) == recorded
