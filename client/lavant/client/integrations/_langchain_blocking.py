"""The roots of LangChain's that are at work for one blocking handler, in whatever threads."""

import logging
from collections.abc import Mapping
from contextvars import copy_context
from threading import Lock
from uuid import UUID

from lavant.client import Client, ProducerOptions, RunProducer, _scope
from lavant.client._options import OnError
from lavant.client.integrations._langchain_begun import Begun
from lavant.client.integrations._langchain_recorder import RootRecorder, value_of
from lavant.client.integrations._langchain_root import Action
from lavant.client.integrations._langchain_scopes import ToolScopes
from lavant.client.integrations._pydantic_ai_guard import Guard

_log = logging.getLogger(__name__)


class BlockingRoot:
    """The run itself if `owns_run`, else a step of it. Unless `strict`, what cannot be recorded is logged."""

    def __init__(
        self, run: RunProducer, begun: Begun, *, owns_run: bool, outer_step_id: str = "", strict: bool
    ) -> None:
        self.key: UUID = begun.key
        self.run = run
        self._owns_run = owns_run
        self._strict = strict
        guard = Guard("raise" if strict else "log", f"the chain {begun.name}")
        self._recorder = RootRecorder(run, guard, outer_step_id, is_step=not owns_run)
        self._lock = Lock()
        self.record(lambda recorder: recorder.begin(begun))

    def record(self, action: Action) -> None:
        """Record something, after all that was told before."""
        try:
            with self._lock:
                action(self._recorder)
        except Exception:
            if self._strict:
                raise
            _log.warning("run %s: something could not be recorded", self.run.id, exc_info=True)

    def step_of(self, key: UUID) -> str:
        """Return the id of a step at work; empty: there is none."""
        return self._recorder.step_of(key)

    def finish(self, output: object, error: BaseException | None) -> None:
        """End it, and its run with it."""
        self.record(lambda recorder: recorder.end(self.key, output, error))
        if self._owns_run:
            self.run.output = value_of(output)
            traceback = error.__traceback__ if error else None
            self.run.__exit__(type(error) if error else None, error, traceback)


class BlockingRoots:
    """Waits for the network at a root's beginning and end only. For any number of threads."""

    def __init__(
        self,
        client: Client,
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
        self._options = options
        self._roots: dict[UUID, BlockingRoot] = {}
        self._tools = ToolScopes()

    def record(self, run_id: UUID, action: Action) -> None:
        """Record something within a root."""
        if root := self._roots.get(run_id):
            root.record(action)

    def begin(self, begun: Begun) -> None:
        """Something began: a root, if nothing is around it. Raises RunCancelled if the run is to stop."""
        root = self._roots.get(begun.parent) if begun.parent else None
        if root is not None:
            root.run.raise_if_cancelled()
            root.record(lambda recorder: recorder.begin(begun))
        elif begun.parent is None:
            root = self._open(begun)
        if root is not None:
            self._roots[begun.key] = root
            self._tools.enter(root, begun)

    def end(self, run_id: UUID, output: object = None, error: BaseException | None = None) -> None:
        """Something ended: with a root, its run."""
        self._tools.leave(run_id)
        root = self._roots.pop(run_id, None)
        if root is None:
            return
        if root.key != run_id:
            root.record(lambda recorder: recorder.end(run_id, output, error))
            return
        for inner in [key for key, other in list(self._roots.items()) if other is root]:
            self._roots.pop(inner, None)
        root.finish(output, error)

    def _open(self, begun: Begun) -> BlockingRoot | None:
        """Create the run, or join the one whose block this is in; None if that cannot be."""
        strict = self._on_error == "raise"
        outer = _scope.current_run()
        if isinstance(outer, RunProducer):
            step_id = _scope.current_step(outer)
            return BlockingRoot(outer, begun, owns_run=False, outer_step_id=step_id, strict=strict)
        name = self._name or begun.name
        try:
            run = self._client.runs.start(
                name,
                input=begun.input,
                run_id=str(begun.key),
                labels=self._labels,
                conversation_id=begun.conversation_id,
                producer_timeout=self._producer_timeout,
                model=begun.model,
                on_error=self._on_error,
                options=self._options,
            )
            # In a context of its own: a block entered here would go on in the caller's when the root is over.
            copy_context().run(run.__enter__)
        except Exception:
            if strict:
                raise
            _log.warning("%s is not recorded: its run could not be created", name, exc_info=True)
            return None
        return BlockingRoot(run, begun, owns_run=True, strict=strict)
