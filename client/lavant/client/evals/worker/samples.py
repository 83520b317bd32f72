"""The samples that are assigned to a worker."""

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from lavant.client._async.transport import Connection
from lavant.client._wire.status import is_cut
from lavant.client.errors import LavantError, SampleLost
from lavant.v1.evaluation_service_pb2 import CompleteSampleRequest, Sample, SampleReturn

_RETURN_TIMEOUT = 5.0  # seconds to return samples at the end; those not returned are assigned again after their lease


class AssignedSamples:
    """Samples of one session, from their assignment until the server has their outcome."""

    def __init__(self, connection: Connection, rule_id: str, session_id: str) -> None:
        self._connection = connection
        self._rule_id = rule_id
        self._session_id = session_id
        # By run. The value is a later assignment of the sample, made while it is evaluated: its lease had expired, or
        # the server wants another attempt.
        self._later: dict[str, Sample | None] = {}

    def __len__(self) -> int:
        return len(self._later)

    def add(self, sample: Sample) -> bool:
        """Record an assignment; return whether the sample is not evaluated already."""
        run_id = sample.run.run_id
        is_new = run_id not in self._later
        self._later[run_id] = None if is_new else sample
        return is_new

    async def complete(self, run_id: str, **outcome: Any) -> bool:
        """Report a sample's outcome, with retries without limit; return whether the sample was still held.

        Raises what the server refuses the outcome with.
        """
        request = self._request(run_id, **outcome)
        while True:
            try:
                await self._connection.call(lambda stubs: stubs.evaluation.CompleteSample, request)
            except SampleLost:
                if self._later[run_id] is None:
                    return False
                self._later[run_id] = None  # the outcome was of the earlier lease; it holds for the later one
            except LavantError as error:
                if not is_cut(error):
                    raise
            else:
                return True

    def remove(self, run_id: str, *, done: bool) -> Sample | None:
        """Remove a sample, unless it is not done and was assigned again: then return the later assignment."""
        later = self._later.pop(run_id)
        if done or later is None:
            return None
        self._later[run_id] = None
        return later

    async def return_held(self) -> None:
        """Return these samples, for a session that continues; bounded as `return_all` is."""
        run_ids, self._later = [*self._later], {}
        if run_ids:
            await self._return(run_ids)

    async def return_all(self) -> None:
        """Return all samples of the session, also those that are on their way, if a few seconds suffice."""
        self._later.clear()
        await self._return(())

    async def _return(self, run_ids: Iterable[str]) -> None:
        request = self._request("", returned=SampleReturn(run_ids=run_ids))
        with suppress(LavantError):
            await self._connection.call(lambda stubs: stubs.evaluation.CompleteSample, request, _RETURN_TIMEOUT)

    def _request(self, run_id: str, **outcome: Any) -> CompleteSampleRequest:
        return CompleteSampleRequest(rule_id=self._rule_id, run_id=run_id, session_id=self._session_id, **outcome)
