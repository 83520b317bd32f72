"""Producers' batches, on their way into the engine."""

import asyncio

from lavant.server.errors import LavantError
from lavant.server.measures import AppendMeasures
from lavant.server.model import RunKey
from lavant.server.rpc.validation import check_callers_run
from lavant.server.store.port import Engine
from lavant.v1.event_service_pb2 import BatchReceipt, ProducerBatch


class Appends:
    """Hands batches to the engine, and counts what becomes of each."""

    def __init__(self, engine: Engine, measures: AppendMeasures | None = None) -> None:
        self._engine = engine
        self._measures = measures or AppendMeasures()

    def append(self, tenant: str, batch: ProducerBatch, began: float) -> asyncio.Future[BatchReceipt]:
        """Append a batch whose request came at `began`, in the event loop's time. Failures come with the receipt."""
        receipt = self._append(tenant, batch)
        receipt.add_done_callback(lambda done: self._count(done, began))
        return receipt

    def _append(self, tenant: str, batch: ProducerBatch) -> asyncio.Future[BatchReceipt]:
        try:
            check_callers_run("batch.run_id", batch.run_id)
        except LavantError as error:
            refused: asyncio.Future[BatchReceipt] = asyncio.get_running_loop().create_future()
            refused.set_exception(error)
            return refused
        return self._engine.append(RunKey(tenant, batch.run_id), batch)

    def _count(self, done: asyncio.Future[BatchReceipt], began: float) -> None:
        if done.cancelled():  # nobody waits for the answer any more
            return
        if (error := done.exception()) is not None:
            self._measures.rejected(error)
            return
        receipt = done.result()
        if receipt.duplicate:
            self._measures.answers["duplicate"] += 1
        elif not receipt.first_sequence:
            self._measures.answers["empty"] += 1
        else:
            self._measures.appended(done.get_loop().time() - began)
