"""The roots of LangChain's that are at work, and which of them each callback belongs to."""

from collections.abc import Mapping
from threading import RLock
from uuid import UUID

from lavant.client import AsyncClient, AsyncRunProducer, Client, ProducerOptions, RunProducer
from lavant.client._options import OnError, check_on_error
from lavant.client.integrations._guard import Guard
from lavant.client.integrations._langchain_begun import Begun
from lavant.client.integrations._langchain_root import Action, Root
from lavant.client.integrations._langchain_scopes import ToolScopes

# LangChain's runs that are recorded, by whatever handler: the first one that is told of a run records it.
_recorded_by: "dict[UUID, Roots]" = {}


class Roots:
    """What handlers of both kinds have in common: finds the root of each callback. For any number of threads.

    A LangChain run that another handler records, as one that is given to the call beside one in a model's
    constructor, is left to that one.
    """

    def __init__(
        self,
        client: AsyncClient | Client,
        *,
        name: str | None,
        labels: Mapping[str, str] | None,
        producer_timeout: float | None,
        on_error: OnError,
        options: ProducerOptions | None,
    ) -> None:
        self.client = client
        self.on_error = check_on_error(on_error)
        self._name = name
        self._labels = labels
        self._producer_timeout = producer_timeout
        self._options = options
        self._roots: dict[UUID, Root] = {}
        self._ignored: dict[UUID, None] = {}
        self._tools = ToolScopes()
        self._lock = RLock()
        self.guard = Guard(self.on_error, "a chain")

    def record(self, run_id: UUID, action: Action) -> None:
        """Record something within a root."""
        if root := self._roots.get(run_id):
            root.record(run_id, action)

    def root_of(self, run_id: UUID) -> Root | None:
        """Return the root that a LangChain run at work belongs to."""
        return self._roots.get(run_id)

    def begin_within(self, begun: Begun) -> bool:
        """Something began within a root, or is recorded elsewhere or not at all; False: it is a root itself."""
        with self._lock:
            other = _recorded_by.get(begun.key) or (_recorded_by.get(begun.parent) if begun.parent else None)
            if (other is not None and other is not self) or begun.parent in self._ignored:
                self.ignore(begun.key)
                return True
            root = self._roots.get(begun.key) or (self._roots.get(begun.parent) if begun.parent else None)
        if root is None:
            return begun.key in self._ignored
        self._add(root, begun)
        return True

    def add_root(self, root: Root, begun: Begun) -> None:
        """Add a root that has begun."""
        self._add(root, begun)

    def end_within(self, run_id: UUID, output: object, error: BaseException | None) -> Root | None:
        """Something ended; return its root if it is the root itself, which is over then."""
        self._tools.leave(run_id)
        with self._lock:
            root = self._roots.pop(run_id, None)
            if root is None:
                self._ignored.pop(run_id, None)
                return None
            _recorded_by.pop(run_id, None)
        root.end(run_id, output, error)
        if root.key != run_id:
            return None
        self.forget(root)
        return root

    def forget(self, root: Root) -> None:
        """Forget a root that is over: what began in it and has not ended may still begin more, which is no root."""
        with self._lock:
            for key in root.keys:
                if self._roots.pop(key, None) is not None:
                    _recorded_by.pop(key, None)
                    self.ignore(key)

    def ignore(self, run_id: UUID) -> None:
        """Record neither this run nor what begins in it."""
        with self._lock:
            self._ignored[run_id] = None
            if len(self._ignored) > _MAX_IGNORED:
                del self._ignored[next(iter(self._ignored))]

    def named(self, begun: Begun) -> str:
        """Return the name of a root's run."""
        return self._name or begun.name

    def start(self, begun: Begun) -> AsyncRunProducer | RunProducer:
        """Return the run of a root, which has not begun."""
        return self.client.runs.start(
            self.named(begun),
            input=begun.input,
            run_id=str(begun.key),
            labels=self._labels,
            conversation_id=begun.conversation_id,
            producer_timeout=self._producer_timeout,
            model=begun.model,
            on_error=self.on_error,
            options=self._options,
        )

    def _add(self, root: Root, begun: Begun) -> None:
        with self._lock:
            self._roots[begun.key] = root
            _recorded_by[begun.key] = self
        if root.begin(begun):
            self._tools.enter(root, begun)


# Of the runs that did not end before their root, how many are remembered.
_MAX_IGNORED = 10_000
