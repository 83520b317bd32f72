"""Which run and step the current task works for: how events find their step without being told.

A task inherits the scope it was created in, so parallel tasks nest rightly and apart.
"""

from contextvars import ContextVar, Token
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Scope:
    """A run's block, or a step's within it; `outer` is the block around it.

    A block of no run, as a row of an evaluation is one, hides those around it: runs that start in it are runs of their
    own, children of `parent_run_id`, and are added to `started`.
    """

    run: object | None
    step_id: str
    outer: "Scope | None"
    parent_run_id: str = ""
    started: list[object] = field(default_factory=list)


_current: ContextVar[Scope | None] = ContextVar("lavant_scope", default=None)


def enter(run: object, step_id: str = "") -> Token[Scope | None]:
    """Begin a block; give the token to `leave`."""
    return _current.set(Scope(run, step_id, _current.get()))


def enter_apart(parent_run_id: str) -> Scope:
    """Begin a block of no run for the rest of the current task, and of the tasks that it begins; return it."""
    scope = Scope(None, "", None, parent_run_id)
    _current.set(scope)
    return scope


def parent_of_new_run() -> str:
    """Return the id of the run that a run which starts here belongs to; empty: none."""
    scope = _current.get()
    return scope.parent_run_id if scope else ""


def has_started(run: object) -> None:
    """Note that a run has started here."""
    scope = _current.get()
    if scope is not None and scope.run is None:
        scope.started.append(run)


def leave(token: Token[Scope | None]) -> None:
    """End the block."""
    try:
        _current.reset(token)
    except ValueError:
        # Left in another context than it was entered in, as fixtures and generators do: that one is gone.
        return


def current_run() -> object | None:
    """Return the run of the innermost block."""
    scope = _current.get()
    return scope.run if scope else None


def current_step(run: object) -> str:
    """Return the innermost step of a run, also from within a block of another run; empty: the run itself."""
    scope = _current.get()
    while scope is not None and scope.run is not run:
        scope = scope.outer
    return scope.step_id if scope else ""
