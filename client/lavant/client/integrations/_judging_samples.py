"""The samples that a worker holds."""

import asyncio
from contextlib import suppress
from typing import Any

from lavant.client._async.connection import Connection
from lavant.client._errors import LavantError, SampleLost
from lavant.client._status import is_cut
from lavant.v1.evaluation_service_pb2 import CompleteSampleRequest, Sample, SampleReturn

_PARTING = 5.0  # seconds that giving samples back may take: those that are not come back with the lease's end


class HeldSamples:
    """Samples of one session, from their handing out until it is known what became of them."""

    def __init__(self, connection: Connection, rule_id: str, session_id: str) -> None:
        self._connection = connection
        self._rule_id = rule_id
        self._session_id = session_id
        # As each was handed out once more, while it was worked on: its lease had ended, or it was to be tried again.
        self._again: dict[str, Sample | None] = {}

    def __len__(self) -> int:
        return len(self._again)

    def take(self, sample: Sample) -> bool:
        """Note that a sample was handed out; tell whether it is another one than those that are worked on."""
        run_id = sample.run.run_id
        is_new = run_id not in self._again
        self._again[run_id] = None if is_new else sample
        return is_new

    async def complete(self, run_id: str, **outcome: Any) -> bool:
        """Tell the server what became of a sample, however long that takes; tell whether it was held still.

        Raises what the server refuses the outcome with.
        """
        request = self._request(run_id, **outcome)
        while True:
            try:
                await self._connection.call(lambda lane: lane.evaluation.CompleteSample, request)
            except SampleLost:
                if self._again[run_id] is None:
                    return False
                self._again[run_id] = None  # What was said was of its earlier lease.
            except LavantError as error:
                if not is_cut(error):
                    raise
            else:
                return True

    def leave(self, run_id: str, *, done: bool) -> Sample | None:
        """Forget a sample; or return it as it is to be worked on now, if it was handed out again, and is not done."""
        again = self._again.pop(run_id)
        if done or again is None:
            return None
        self._again[run_id] = None
        return again

    async def return_each(self) -> None:
        """Let others have what the session holds, which may hold more later; bounded as `give_back` is."""
        held, self._again = [*self._again], {}
        try:
            async with asyncio.timeout(_PARTING):
                for run_id in held:
                    with suppress(LavantError):
                        request = self._request(run_id, returned=SampleReturn())
                        await self._connection.call(lambda lane: lane.evaluation.CompleteSample, request, _PARTING)
        except TimeoutError:
            pass  # they come back with the lease's end, or to the next stream of the session

    async def give_back(self) -> None:
        """Let others have all that the session holds, also what is on its way, if that can be told in a few seconds."""
        self._again.clear()
        with suppress(LavantError):
            request = self._request("", returned=SampleReturn())
            await self._connection.call(lambda lane: lane.evaluation.CompleteSample, request, _PARTING)

    def _request(self, run_id: str, **outcome: Any) -> CompleteSampleRequest:
        return CompleteSampleRequest(rule_id=self._rule_id, run_id=run_id, session_id=self._session_id, **outcome)
