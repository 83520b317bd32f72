"""The roots of LangChain's that are at work for one handler, and which of them each callback belongs to."""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import replace
from uuid import UUID

from lavant.client import AsyncClient, AsyncRunProducer, ProducerOptions, _scope
from lavant.client._options import OnError
from lavant.client.integrations._langchain_begun import Begun
from lavant.client.integrations._langchain_root import Action, Root, is_running
from lavant.client.integrations._langchain_scopes import ToolScopes

_log = logging.getLogger(__name__)

# Of the runs that did not end before their root, how many are remembered: what they begin late is no root.
_MAX_IGNORED = 1_000


class Roots:
    """Waits for the network at a root's beginning and end only."""

    def __init__(
        self,
        client: AsyncClient,
        *,
        name: str | None,
        labels: Mapping[str, str] | None,
        producer_timeout: float | None,
        on_error: OnError,
        options: ProducerOptions | None,
    ) -> None:
        self._client = client
        self._name = name
        self._labels = labels
        self._producer_timeout = producer_timeout
        self._on_error: OnError = on_error
        self._strict = on_error == "raise"
        self._options = options
        self._loop = _running_loop()
        self._roots: dict[UUID, Root] = {}
        self._ignored: dict[UUID, None] = {}
        self._finishing: set[asyncio.Task[None]] = set()
        self._tools = ToolScopes()

    def record(self, run_id: UUID, action: Action) -> None:
        """Record something within a root."""
        if root := self._roots.get(run_id):
            root.record(action)

    async def begin(self, begun: Begun) -> None:
        """Something began: a root, if nothing known is around it."""
        root = self._roots.get(begun.parent) if begun.parent else None
        if root is not None:
            self._roots[begun.key] = root
            root.record(lambda recorder: recorder.begin(begun))
            self._tools.enter(root, begun)
            return
        root = None if begun.parent in self._ignored else await self._open(begun)
        if root is None:
            self._ignore(begun.key)
            return
        self._roots[begun.key] = root
        self._tools.enter(root, begun)

    async def end(self, run_id: UUID, output: object = None, error: BaseException | None = None) -> None:
        """Something ended: with a root, its run."""
        self._tools.leave(run_id)
        root = self._roots.get(run_id)
        if root is None:
            self._ignored.pop(run_id, None)
        elif root.key == run_id:
            await self._finish(root, output, error)
        else:
            del self._roots[run_id]
            root.record(lambda recorder: recorder.end(run_id, output, error))

    async def _open(self, begun: Begun) -> Root | None:
        """Create the run, or join the one whose block this is in; None if that cannot be."""
        self._loop = self._loop or asyncio.get_running_loop()
        if not is_running(self._loop):
            _log.warning("%s is not recorded: it was not called in the event loop of the client", begun.name)
            return None
        begun = replace(begun, name=self._name or begun.name)
        outer = _scope.current_run()
        if isinstance(outer, AsyncRunProducer):
            step_id = _scope.current_step(outer)
            return Root(outer, begun, self._finish_lost, owns_run=False, outer_step_id=step_id, strict=self._strict)
        try:
            run = self._client.runs.start(
                begun.name,
                input=begun.input,
                run_id=str(begun.key),
                labels=self._labels,
                conversation_id=begun.conversation_id,
                producer_timeout=self._producer_timeout,
                model=begun.model,
                on_error=self._on_error,
                options=self._options,
            )
            # In a task of its own: a block entered here would go on in the caller's context when the root is over.
            await asyncio.create_task(_enter(run))
        except Exception:
            if self._strict:
                raise
            _log.warning("%s is not recorded: its run could not be created", begun.name, exc_info=True)
            return None
        return Root(run, begun, self._finish_lost, owns_run=True, strict=self._strict)

    async def _finish(self, root: Root, output: object, error: BaseException | None) -> None:
        for run_id, other in list(self._roots.items()):
            if other is root:
                del self._roots[run_id]
                self._ignore(run_id)
        await root.finish(output, error)

    def _finish_lost(self, root: Root) -> None:
        cut = asyncio.CancelledError("cut off")
        finishing = asyncio.get_running_loop().create_task(self._finish(root, None, cut))
        self._finishing.add(finishing)
        finishing.add_done_callback(self._finishing.discard)

    def _ignore(self, run_id: UUID) -> None:
        self._ignored[run_id] = None
        if len(self._ignored) > _MAX_IGNORED:
            del self._ignored[next(iter(self._ignored))]


async def _enter(run: AsyncRunProducer) -> None:
    await run.__aenter__()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
