"""Which run and step the current task works for: how events find their step without being told.

A task inherits the scope it was created in, so parallel tasks nest rightly and apart.
"""

from contextvars import ContextVar, Token
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scope:
    """A run's block, or a step's within it; `outer` is the block around it."""

    run: object
    step_id: str
    outer: "Scope | None"


_current: ContextVar[Scope | None] = ContextVar("lavant_scope", default=None)


def enter(run: object, step_id: str = "") -> Token[Scope | None]:
    """Begin a block; give the token to `leave`."""
    return _current.set(Scope(run, step_id, _current.get()))


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
