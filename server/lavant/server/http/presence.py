"""Work for a request lasts no longer than the peer that made it."""

import asyncio

from starlette.types import ASGIApp, Receive, Scope, Send


class WhilePresent:
    """Cancels an application's work for a request once the peer has left: nobody is there to be answered.

    Requests that are sent and dropped would otherwise have their answers worked out one after the other, before
    those that somebody waits for.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or stop. Requests have no bodies here: the application never receives."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        working = asyncio.ensure_future(self._app(scope, receive, send))
        leaving = asyncio.ensure_future(_disconnected(receive))
        try:
            await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            working.cancel()
            leaving.cancel()
            await asyncio.gather(working, leaving, return_exceptions=True)
        if not working.cancelled() and (error := working.exception()) is not None:
            raise error


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
