"""Records what OpenTelemetry traces: `provider.add_span_processor(LavantSpanProcessor(client))`.

Needs `pip install 'lavant[otel]'`.
"""

import logging
import threading
from collections import deque
from collections.abc import Mapping
from functools import partial

from typing_extensions import override

from lavant.client import Client, LavantError, ProducerOptions
from lavant.client._async.concurrency import monotonic
from lavant.client.integrations.extras import extra
from lavant.client.options import OnError, check_on_error

with extra("otel"):
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor

from lavant.client.integrations.opentelemetry.span import SpanSnapshot, is_call_to_lavant
from lavant.client.integrations.opentelemetry.span_run import SpanRun
from lavant.client.integrations.opentelemetry.worker import Action, SpanWorker
from lavant.client.integrations.recording.runs import RunOptions
from lavant.contract.text import to_name

_log = logging.getLogger(__name__)

# How many ended traces and left-out spans are remembered: what starts in one of them late is no root.
_REMEMBERED = 8_192
_HIDDEN_SECONDS = 0.25
_PATIENCE = 2.0  # seconds that `force_flush` waits for a server that is out of reach


class LavantSpanProcessor(SpanProcessor):
    """Publishes each root span, one with no parent in this process, as a run, and the spans within it as its steps.

    Model requests, tools and agents are recognised by OpenTelemetry's GenAI conventions; any other span is a workflow
    step. The root's end ends the run, with the root's own times; spans within it that are open then are recorded as
    failed, and their end is dropped. Spans of calls to lavant itself, as instrumented gRPC makes them, are left out,
    with all spans within them.

    One thread publishes everything: the application never waits for it, and never gets an error from it. When more
    than `queue_limit` starts and ends are waiting, the run of the next one ends as FAILED, with one warning.

    A span is shown to readers a quarter of a second after its start, or when another one starts in it, or at its
    end: by then it has the name and the attributes that the application sets after the start. A tool's arguments and
    result count whenever they are set.

    With `on_error="raise"`, `force_flush` and `shutdown` raise what could not be recorded, else it is logged.
    CancelRun does not stop the application. Close the client after the provider's `shutdown`. Raises ValueError for
    another `on_error`.

    Example:
        provider = TracerProvider()
        provider.add_span_processor(LavantSpanProcessor(client))
        with provider.get_tracer("app").start_as_current_span("weather-agent"):
            pass
        provider.shutdown()
        assert next(client.runs.list()).name == "weather-agent"
    """

    def __init__(
        self,
        client: Client,
        *,
        labels: Mapping[str, str] | None = None,
        producer_timeout: float | None = 60.0,
        options: ProducerOptions | None = None,
        on_error: OnError = "log",
        queue_limit: int = 10_000,
    ) -> None:
        self._client = client
        self._raises = check_on_error(on_error) == "raise"
        self._options = RunOptions(
            labels=labels, producer_timeout=producer_timeout, on_error=on_error, options=options or ProducerOptions()
        )
        self._worker = SpanWorker(queue_limit, self._show_due, raises=self._raises)
        # A span may end while garbage is collected, in the midst of another one's start.
        self._lock = threading.RLock()
        self._roots: dict[int, SpanRun] = {}
        self._left_out: dict[int, None] = {}
        self._ended_traces: dict[int, None] = {}
        self._hidden: deque[tuple[float, SpanRun, int]] = deque()
        self._has_shut_down = False

    @override
    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Record the start of a span. Never waits, never raises."""
        try:
            with self._lock:
                if not self._has_shut_down:
                    self._begin(span)
        except Exception:
            _log.warning("a span could not be recorded", exc_info=True)

    @override
    def on_end(self, span: ReadableSpan) -> None:
        """Record the end of a span. Never waits, never raises."""
        try:
            with self._lock:
                self._end(span)
        except Exception:
            _log.warning("a span could not be recorded", exc_info=True)

    @override
    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Wait until what is queued is recorded and durable.

        Returns False after `timeout_millis`, and after 2 seconds if the server is out of reach.
        """
        deadline = monotonic() + timeout_millis / 1000
        self._worker.submit(self._show_all, urgent=True)
        return self._worker.wait(timeout_millis / 1000) and self._flush(deadline)

    @override
    def shutdown(self) -> None:
        """Record what is queued, end the runs whose roots are still open as FAILED, and accept no more spans.

        Waits until all is durable, for 2 seconds at most, or as long as `options.close_timeout` says.
        """
        with self._lock:
            if self._has_shut_down:
                return
            self._has_shut_down = True
            for run in set(self._roots.values()):
                self._abandon(run, "the tracer provider was shut down before its root span ended")
                self._forget(run)
            self._worker.close()
        patience = (self._options["options"] or ProducerOptions()).close_seconds(raises=self._raises)
        if not self._worker.wait(patience) or not self._flush(monotonic() + patience):
            _log.warning("not all spans are durable after %g s: the rest is sent while the client is open", patience)

    def _flush(self, deadline: float) -> bool:
        if self._raises:  # the worker has waited for each run
            return True
        while not self._client.flush(min(_PATIENCE, max(0.001, deadline - monotonic()))):
            if self._client._connection.outage.is_on or monotonic() >= deadline:
                return False
        return True

    def _begin(self, span: Span) -> None:
        context, parent = span.context, span.parent
        if is_call_to_lavant(span) or (parent is not None and parent.span_id in self._left_out):
            _remember(self._left_out, context.span_id)
            return
        run = self._roots.get(parent.span_id) if parent else None
        if run is None:
            if parent and not parent.is_remote and context.trace_id in self._ended_traces:
                _log.debug("span %s started after its root had ended: not recorded", span.name)
                return
            run = SpanRun(self._client, span, self._options)
        self._roots[context.span_id] = run
        run.spans.add(context.span_id)
        self._submit(run, partial(self._start, run, span))

    def _end(self, span: ReadableSpan) -> None:
        key = span.context.span_id
        self._left_out.pop(key, None)
        run = self._roots.get(key)
        if run is None:
            _log.debug("span %s ended after its root: not recorded", span.name)
        elif run.root_id != key:
            self._submit(run, partial(run.end, SpanSnapshot.of(span)))
        else:
            self._submit(run, partial(run.finish, SpanSnapshot.of(span)))
            self._forget(run)

    def _submit(self, run: SpanRun, action: Action) -> None:
        if run.is_dropped or self._worker.submit(action):
            return
        run.is_dropped = True
        name = to_name(run.root.name)
        _log.warning("run of span %s is not recorded any further: too many spans are waiting", name)
        self._abandon(run, "not recorded further: too many spans were waiting")

    def _abandon(self, run: SpanRun, why: str) -> None:
        self._worker.submit(partial(run.abandon, LavantError(why)), urgent=True)

    def _forget(self, run: SpanRun) -> None:
        for key in run.spans:
            self._roots.pop(key, None)
        _remember(self._ended_traces, run.root.context.trace_id)

    def _start(self, run: SpanRun, span: Span) -> None:
        """Note the start of a span, which is shown a little later."""
        run.start(span)
        self._hidden.append((monotonic() + _HIDDEN_SECONDS, run, span.context.span_id))

    def _show_due(self) -> float | None:
        """Show the spans that are due; return in how many seconds the next one is."""
        while self._hidden:
            due, run, key = self._hidden[0]
            if not run.is_over and due > monotonic():
                return due - monotonic()
            self._hidden.popleft()
            run.show(key)
        return None

    def _show_all(self) -> None:
        while self._hidden:
            _, run, key = self._hidden.popleft()
            run.show(key)


def _remember(keys: dict[int, None], key: int) -> None:
    keys[key] = None
    if len(keys) > _REMEMBERED:
        del keys[next(iter(keys))]
