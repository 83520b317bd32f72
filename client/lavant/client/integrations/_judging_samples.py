"""The samples that a worker holds."""

import asyncio
from typing import Any

from lavant.client._async.connection import Connection
from lavant.client._errors import LavantError, SampleLost
from lavant.client._status import is_cut
from lavant.v1.evaluation_service_pb2 import CompleteSampleRequest, SampleReturn

_PARTING = 5.0  # seconds that giving samples back may take: those that are not come back with the lease's end


class HeldSamples:
    """Samples of one session, from their handing out until it is known what became of them."""

    def __init__(self, connection: Connection, rule_id: str, session_id: str) -> None:
        self._connection = connection
        self._rule_id = rule_id
        self._session_id = session_id
        # Whether each was handed out once more since its last outcome was refused: its first lease may have ended.
        self._handed_out_again: dict[str, bool] = {}

    def __len__(self) -> int:
        return len(self._handed_out_again)

    def take(self, run_id: str) -> bool:
        """Note that a sample was handed out; tell whether it is another one than those that are held."""
        is_new = run_id not in self._handed_out_again
        self._handed_out_again[run_id] = not is_new
        return is_new

    async def complete(self, run_id: str, **outcome: Any) -> bool:
        """Tell the server what became of a sample, however long that takes; tell whether it was held still.

        Raises what the server refuses the outcome with: then it is held on.
        """
        request = self._request(run_id, **outcome)
        while True:
            try:
                await self._connection.call(lambda lane: lane.evaluation.CompleteSample, request)
            except SampleLost:
                if self._handed_out_again[run_id]:
                    self._handed_out_again[run_id] = False
                    continue
                del self._handed_out_again[run_id]
                return False
            except LavantError as error:
                if is_cut(error):
                    continue
                raise
            del self._handed_out_again[run_id]
            return True

    async def give_back(self) -> None:
        """Let others have what is held, as far as that can be told in a few seconds."""
        requests = [self._request(run_id, returned=SampleReturn()) for run_id in self._handed_out_again]
        self._handed_out_again.clear()
        await asyncio.gather(*map(self._return, requests), return_exceptions=True)

    async def _return(self, request: CompleteSampleRequest) -> None:
        await self._connection.call(lambda lane: lane.evaluation.CompleteSample, request, _PARTING)

    def _request(self, run_id: str, **outcome: Any) -> CompleteSampleRequest:
        return CompleteSampleRequest(rule_id=self._rule_id, run_id=run_id, session_id=self._session_id, **outcome)
