"""Alerts, one after the other, and the position in them."""

from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self

from lavant.client._async.concurrency import UsageHints
from lavant.client._async.stream import AsyncRunStream
from lavant.client._events import AlertChangedEvent


class AsyncAlertStream(UsageHints, AsyncIterator[AlertChangedEvent]):
    """Tells when scores leave their bounds and when they are back, each change exactly once; never ends by itself.

    Reconnects by itself, unseen. Iterate over it once, in one task. Leaving its `async with` block, or dropping the
    last reference to it, ends the call.

    Example:
        few = Alert(name="few", statistic=ScoreStatistic.COUNT, below=100, window=timedelta(hours=1))
        await client.rules.create("quality", alerts=[few])
        await client.evaluations.process_stream("quality", evaluators=[EqualsExpected()], until_caught_up=True)
        async with client.scores.alerts(consumer="pager", idle_timeout=0.1) as stream:
            try:
                async for alert in stream:
                    print(alert.data.message)
            except IdleTimeout:
                print("nothing else happened")
        later = client.scores.alerts(consumer="pager", resume_token=stream.resume_token)
    """

    def __init__(self, stream: AsyncRunStream) -> None:
        self._stream = stream

    @property
    def resume_token(self) -> str:
        """Where a new stream continues: behind the last change handed out; empty before the first frame."""
        return self._stream.resume_token

    async def aclose(self) -> None:
        """End the stream: cancels the call at once. May be called again."""
        await self._stream.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> AlertChangedEvent:
        while True:
            event = await anext(self._stream)
            if event.type == "alert_changed":
                return event
