"""Where a rule's workers are served: who they are, and the drawing that goes on for them."""

import asyncio
from typing import Protocol

from lavant.server.clock import Clock
from lavant.server.evaluation.desk import Desk
from lavant.server.evaluation.drawing import Drawer, ScoredRuns
from lavant.server.store.port import Engine


class Worker(Protocol):
    """Somebody who is handed samples."""

    def has_room(self) -> bool:
        """Whether it wants more."""

    def wake(self) -> None:
        """Have it look again at what there is to do."""


class Counter:
    """Draws samples for as long as there are workers; one drawing for all of them."""

    def __init__(self, desk: Desk, engine: Engine, clock: Clock, scored_runs: ScoredRuns | None) -> None:
        self.desk = desk
        self.drawer = Drawer(desk, engine, clock, self._somebody_has_room, scored_runs)
        self._workers: set[Worker] = set()
        self._drawing: asyncio.Task[None] | None = None

    @property
    def workers(self) -> int:
        """How many workers are served."""
        return len(self._workers)

    def enter(self, worker: Worker) -> None:
        """Serve a worker; it is woken after each change, until it leaves."""
        self._workers.add(worker)
        self.desk.listen(worker, worker.wake)
        if self._drawing is None:
            self._drawing = asyncio.get_running_loop().create_task(self.drawer.run())

    def leave(self, worker: Worker) -> None:
        """Serve a worker no more."""
        self._workers.discard(worker)
        self.desk.forget(worker)
        if not self._workers and self._drawing is not None:
            self._drawing.cancel()
            self._drawing = None
            self.drawer.forget()

    def _somebody_has_room(self) -> bool:
        return any(worker.has_room() for worker in self._workers)
