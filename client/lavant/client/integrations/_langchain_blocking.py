"""The roots of a blocking handler, in whatever threads."""

from dataclasses import replace
from uuid import UUID

from lavant.client import AsyncRunProducer, Client, RunProducer, _scope
from lavant.client.integrations._guard import Guard
from lavant.client.integrations._langchain_asynchronous import joined
from lavant.client.integrations._langchain_begun import Begun
from lavant.client.integrations._langchain_root import Root
from lavant.client.integrations._langchain_roots import Roots


class BlockingRoots(Roots):
    """Waits for the network at a root's end, for 2 seconds at most, and with `on_error="raise"` at its beginning."""

    def begin(self, begun: Begun) -> None:
        """Something began: a root, if nothing is around it. Raises RunCancelled if the run is to stop."""
        around = self.root_of(begun.parent) if begun.parent else None
        if around is not None and self.root_of(begun.key) is None:
            around.run.raise_if_cancelled()
        with self.guard:
            if not self.begin_within(begun):
                self.add_root(self._open(begun), begun)

    def end(self, run_id: UUID, output: object = None, error: BaseException | None = None) -> None:
        """Something ended: with a root, its run."""
        with self.guard:
            root = self.end_within(run_id, output, error)
            if root is None or not root.owns_run or not isinstance(root.run, RunProducer):
                return
            root.run.end(error)
            root.run._wait_ended(error)

    def _open(self, begun: Begun) -> Root:
        begun = replace(begun, name=self.named(begun))
        guard = Guard(self.on_error, f"the chain {begun.name}")
        outer = _scope.current_run()
        if isinstance(outer, AsyncRunProducer | RunProducer):
            return joined(outer, begun, guard)
        if not isinstance(self.client, Client):
            raise TypeError(
                f"LavantCallbackHandler needs a Client, not {type(self.client).__name__}; "
                "AsyncLavantCallbackHandler takes an AsyncClient"
            )
        run = self.start(begun)
        assert isinstance(run, RunProducer)  # noqa: S101
        run.begin()
        run._wait_created()
        return Root(run, run, begun, guard, owns_run=True)
