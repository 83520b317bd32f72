"""Commands that use a client: their connection options, their errors as one line, their exit statuses."""

import asyncio
import inspect
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, Concatenate, ParamSpec

import typer

from lavant.client import (
    AsyncClient,
    KeyNotFound,
    LavantError,
    PermissionDenied,
    QuotaExceeded,
    RuleNotFound,
    RunNotFound,
    RunState,
    Unauthenticated,
    Unavailable,
)
from lavant.client._wire.target import resolve_target
from lavant.client.cli.options import CONNECTION, Profile
from lavant.client.cli.profiles import Access, config_path, read_profile
from lavant.client.cli.statuses import (
    FAILED,
    PIPE_CLOSED,
    RUN_ABANDONED,
    RUN_CANCELLED,
    RUN_FAILED,
    RUN_TIMED_OUT,
    TERMINATED,
    UNKNOWN_OUTCOME,
)
from lavant.client.cli.untrusted import one_line

_STATUSES = {
    RunState.SUCCEEDED: 0,
    RunState.FAILED: RUN_FAILED,
    RunState.CANCELLED: RUN_CANCELLED,
    RunState.TIMED_OUT: RUN_TIMED_OUT,
    RunState.ABANDONED: RUN_ABANDONED,
}
_ADVICE: dict[type[LavantError], str] = {
    RunNotFound: "`lavant runs` lists those that exist",
    KeyNotFound: "`lavant keys list` lists those that exist",
    RuleNotFound: "`lavant rules list` lists those that exist",
    Unauthenticated: "set a valid key with --api-key, LAVANT_API_KEY or a profile",
    PermissionDenied: "set a key that allows it with --api-key, LAVANT_API_KEY or a profile",
    QuotaExceeded: "try again later",
    Unavailable: "try again",
}
_P = ParamSpec("_P")


class CommandError(Exception):
    """A command cannot do its work; the text says why, and what to do."""


def command(
    timeout: float = 10.0,
) -> Callable[[Callable[Concatenate[AsyncClient, _P], Coroutine[Any, Any, None]]], Callable[..., None]]:
    """Make a command of a coroutine function whose first parameter is a client; add the options of a connection.

    `timeout` is how long each call may take while the server is unreachable, in seconds. The command raises
    typer.Exit with 1 for an error, and with 141 when its output is no longer read.
    """

    def decorate(work: Callable[Concatenate[AsyncClient, _P], Coroutine[Any, Any, None]]) -> Callable[..., None]:
        @wraps(work)
        def run(profile: str | None, **arguments: Any) -> None:
            given = Access(**{name: arguments.pop(name) for name in CONNECTION})
            access = given.or_else(read_profile(profile, config_path()))

            async def connected() -> None:
                try:
                    client = AsyncClient(**access.arguments(), timeout=timeout)
                except ValueError as error:
                    raise typer.BadParameter(str(error)) from None
                async with client:
                    await work(client, **arguments)  # type: ignore[call-arg]

            _run(connected(), access.target)

        # typer reads the options from the signature.
        _, *own = inspect.signature(work).parameters.values()
        added = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
            for name, annotation in {**CONNECTION, "profile": Profile}.items()
        ]
        run.__signature__ = inspect.Signature([*own, *added])  # type: ignore[attr-defined]
        return run

    return decorate


def _run(work: Coroutine[Any, Any, None], target: str | None) -> None:
    try:
        try:
            asyncio.run(work)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # What is still buffered would raise once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(PIPE_CLOSED) from None
    except (LavantError, CommandError, OSError) as error:
        typer.echo(explain(error, target), err=True)
        raise typer.Exit(FAILED) from None


def status_of(state: RunState) -> int:
    """Return the exit status for the state in which a run ended."""
    return _STATUSES.get(state, UNKNOWN_OUTCOME)


def explain(error: Exception, target: str | None = None) -> str:
    """Describe an error on one line; `target` is the server that the command used."""
    if isinstance(error, Unavailable) and error.reason is None and _has_no_answer(error):
        return (
            f"lavant: no server answers at {resolve_target(target)}: "
            "start one with `lavant serve`, or name another with --target or LAVANT_TARGET"
        )
    if isinstance(error, OSError) and error.strerror:
        return one_line(f"lavant: {error.filename or 'output'}: {error.strerror}")
    advice = next((text for kind, text in _ADVICE.items() if isinstance(error, kind)), "")
    return one_line(f"lavant: {error}: {advice}" if advice else f"lavant: {error}")


def _has_no_answer(error: Unavailable) -> bool:
    """Return whether nothing answered; otherwise the message names what did."""
    return not any(
        text in error.message for text in ("does not speak gRPC", "cannot be found", "secure", "may require")
    )


@contextmanager
def cancelled_by_sigterm() -> Iterator[None]:
    """Cancel the current task at SIGTERM, so that it can clean up; raise typer.Exit with 143 then."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    terminated = False

    def terminate() -> None:
        nonlocal terminated
        terminated = True
        if task is not None:
            task.cancel()

    loop.add_signal_handler(signal.SIGTERM, terminate)
    try:
        yield
    except asyncio.CancelledError:
        if terminated:
            raise typer.Exit(TERMINATED) from None
        raise
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
