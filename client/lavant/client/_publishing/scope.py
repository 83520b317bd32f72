"""The run and step that the current task works for, from which events take their step.

A task inherits the scope of its creation, so parallel tasks nest correctly and independently.
"""

from contextvars import ContextVar, Token
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Scope:
    """Block of a run, or of a step within it; `outer` is the enclosing block.

    A block without a run, such as a row of an evaluation, hides the enclosing ones: runs that start in it are children
    of `parent_run_id`, and are appended to `started`.
    """

    run: object | None
    step_id: str
    outer: "Scope | None"
    parent_run_id: str = ""
    started: list[object] = field(default_factory=list)


_current: ContextVar[Scope | None] = ContextVar("lavant_scope", default=None)


def enter(run: object, step_id: str = "") -> Token[Scope | None]:
    """Enter a block. Pass the token to `leave`."""
    return _current.set(Scope(run, step_id, _current.get()))


def enter_apart(parent_run_id: str) -> Scope:
    """Enter a block without a run, for the rest of the current task and the tasks that it creates. Return it."""
    scope = Scope(None, "", None, parent_run_id)
    _current.set(scope)
    return scope


def parent_of_new_run() -> str:
    """Return the id of the parent of a run that starts here; empty without one."""
    scope = _current.get()
    return scope.parent_run_id if scope else ""


def has_started(run: object) -> None:
    """Note that a run has started here."""
    scope = _current.get()
    if scope is not None and scope.run is None:
        scope.started.append(run)


def leave(token: Token[Scope | None]) -> None:
    """Leave a block."""
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
    """Return the innermost step of a run, also from within a block of another run; empty for the run itself."""
    scope = _current.get()
    while scope is not None and scope.run is not run:
        scope = scope.outer
    return scope.step_id if scope else ""
