# Made from _async/alert_stream.py by client/unasync.py: change that one.
"""Alerts, one after the other, and the position in them."""

from collections.abc import Iterator
from types import TracebackType
from typing import Self

from lavant.client._events import AlertChangedEvent
from lavant.client._sync.concurrency import UsageHints
from lavant.client._sync.stream import RunStream


class AlertStream(UsageHints, Iterator[AlertChangedEvent]):
    """Tells when scores leave their bounds and when they are back, each change exactly once; never ends by itself.

    Reconnects by itself, unseen. Iterate over it once, in one thread. Leaving its `with` block, or dropping the
    last reference to it, ends the call.

    Example:
        few = Alert(name="few", statistic=ScoreStatistic.COUNT, below=100, window=timedelta(hours=1))
        client.rules.create("quality", alerts=[few])
        client.evaluations.process_stream("quality", evaluators=[EqualsExpected()], until_caught_up=True)
        with client.scores.alerts(consumer="pager", idle_timeout=0.1) as stream:
            try:
                for alert in stream:
                    print(alert.data.message)
            except IdleTimeout:
                print("nothing else happened")
        later = client.scores.alerts(consumer="pager", resume_token=stream.resume_token)
    """

    def __init__(self, stream: RunStream) -> None:
        self._stream = stream

    @property
    def resume_token(self) -> str:
        """Where a new stream continues: behind the last change handed out; empty before the first frame."""
        return self._stream.resume_token

    def close(self) -> None:
        """End the stream: cancels the call at once. May be called again."""
        self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> AlertChangedEvent:
        while True:
            event = next(self._stream)
            if event.type == "alert_changed":
                return event
