"""Which evaluators a command is given."""

import sys
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from lavant.client.cli._failures import CommandError

if TYPE_CHECKING:
    from pydantic_evals.evaluators import Evaluator

READY_MADE = ("correctness", "completeness", "clearness", "success", "efficiency")


def evaluators_of(paths: Iterable[str], judges: str, model: str | None) -> "list[Evaluator[Any, Any, Any]]":
    """Find evaluators by `package.module:name`, then the ready-made judges by their names; a model alone means all.

    Raises a usage error for what is none, and CommandError where pydantic-evals is missing.
    """
    try:
        from lavant.client.integrations import judging
    except ModuleNotFoundError as error:
        raise CommandError(f"{error.name} is missing: pip install 'lavant[evals]'") from None
    names = [name for name in judges.replace(" ", "").split(",") if name]
    found = [evaluator for path in paths for evaluator in _imported(path)]
    if not found and not names:
        if model is None:
            raise typer.BadParameter("name who judges: --evaluators package.module:name, or --judge MODEL")
        names = [*READY_MADE]
    for name in names:
        if name not in READY_MADE:
            raise typer.BadParameter(f"--judges must be of {', '.join(READY_MADE)}, not {name!r}")
    try:
        return found + [getattr(judging, name)(model) for name in names]
    except ValueError:
        raise typer.BadParameter("--judges need a model: --judge MODEL, or LAVANT_JUDGE_MODEL") from None


def _imported(path: str) -> "list[Evaluator[Any, Any, Any]]":
    module_name, _, name = path.partition(":")
    if not module_name or not name.isidentifier():
        raise typer.BadParameter(f"--evaluators must be package.module:name, not {path!r}")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        found = getattr(import_module(module_name), name)
    except ModuleNotFoundError as error:
        raise CommandError(f"{path}: {error.name} is missing: is it installed, or in this folder?") from None
    except AttributeError:
        raise typer.BadParameter(f"--evaluators: {module_name} has no {name}") from None
    from pydantic_evals.evaluators import Evaluator

    try:
        made = found() if isinstance(found, type) else found
    except TypeError as error:
        raise typer.BadParameter(f"--evaluators: {path} cannot be made: {error}") from None
    several = list(made) if isinstance(made, Iterable) else [made]
    if not several or not all(isinstance(one, Evaluator) for one in several):
        raise typer.BadParameter(f"--evaluators: {path} is no evaluator of pydantic-evals, nor several of these")
    return several
