"""Watching runs come, change and end."""

from collections.abc import AsyncIterator

import grpc

from lavant.client._async.concurrency import Cancelled, ClientClosed, is_being_cancelled, read
from lavant.client._async.connection import Connection
from lavant.client._async.reconnect import Reconnect
from lavant.client._errors import LavantError, StreamCut, Unavailable
from lavant.client._models import Run
from lavant.client._status import from_rpc_error
from lavant.v1.run_service_pb2 import RunFilter, WatchRunsRequest

RECONNECT_TIMEOUT = 60.0


async def watch_runs(connection: Connection, matching: RunFilter, resume_token: str) -> AsyncIterator[Run]:
    """Give the runs that match, then each change of state, over as many calls as it takes; never ends by itself."""
    reconnect = Reconnect(connection.new_backoff(), RECONNECT_TIMEOUT)
    while True:
        request = WatchRunsRequest(filter=matching, resume_token=resume_token)
        try:
            call = connection.runs.WatchRuns(request, metadata=connection.metadata)
        except ClientClosed:
            raise StreamCut("the client is closed") from None
        error: LavantError = Unavailable("the watch ended")
        try:
            while (frame := await read(call)) is not None:
                reconnect.progress()
                for run in frame.runs:
                    yield Run.from_proto(run)
                resume_token = frame.resume_token
        except grpc.RpcError as failure:
            error = from_rpc_error(failure)
        except ClientClosed:
            raise StreamCut("the client is closed") from None
        except Cancelled:
            if is_being_cancelled():
                raise
            raise StreamCut("the client was closed") from None
        finally:
            call.cancel()
        await reconnect.pause(error)
