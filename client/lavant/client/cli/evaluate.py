"""`lavant evaluate`: a worker that evaluates the runs that a rule selects."""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from lavant.client import AsyncClient, EvaluatedRun
from lavant.client.cli.cells import cut
from lavant.client.cli.options import Header, Json, RuleId, ScoreLabels, labels_of, names_of
from lavant.client.cli.output import Listing, score_text
from lavant.client.cli.session import CommandError, cancelled_by_sigterm, command
from lavant.client.cli.tail.text import scores_text, seconds
from lavant.client.cli.untrusted import one_line

if TYPE_CHECKING:
    from pydantic_evals.evaluators import Evaluator

JUDGES = ("correctness", "completeness", "clarity", "success", "efficiency")


@command()
async def evaluate(
    client: AsyncClient,
    rule: RuleId,
    evaluators: Annotated[
        list[str] | None,
        typer.Option(
            *("--evaluators", "-e"),
            metavar="MODULE:NAME",
            help="An evaluator of pydantic-evals, its class, or a list of evaluators; may be repeated.",
        ),
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(
            "--judge",
            metavar="MODEL",
            envvar="LAVANT_JUDGE_MODEL",
            help="Model of the ready-made LLM judges, by its name in pydantic-ai: openai:gpt-5.",
            show_default=False,
        ),
    ] = None,
    judges: Annotated[
        str,
        typer.Option(
            "--judges",
            metavar="NAME,...",
            help=f"Ready-made LLM judges to use: {', '.join(JUDGES)}.",
            show_default="all, if there are no --evaluators",
        ),
    ] = "",
    max_concurrency: Annotated[
        int, typer.Option("--max-concurrency", min=1, max=1_000, help="Maximum number of runs evaluated at once.")
    ] = 5,
    label: ScoreLabels = None,
    timeout: Annotated[float, typer.Option(min=0, metavar="SECONDS", help="Time limit of each evaluator.")] = 60,
    once: Annotated[bool, typer.Option("--once", help="Stop when all selected runs are evaluated.")] = False,
    worker: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of this worker.", show_default="generated")
    ] = None,
    take_over: Annotated[bool, typer.Option("--take-over", help="Displace another worker of this name.")] = False,
    json: Json = False,
    header: Header = False,
) -> None:
    """Evaluate the runs that a rule selects, as they finish.

    Any number of workers share a rule. Output that is not a terminal gets tab-separated columns: run, name, and scores
    or the error. Ctrl-C and SIGTERM return unfinished samples, and other workers evaluate them.

    Exit status: 0 all runs are evaluated, with --once; 1 error of lavant, or evaluators are unavailable and runs are
    waiting; 2 wrong usage; 130 Ctrl-C; 143 SIGTERM.
    """
    labels = labels_of(label)
    found = find_evaluators(evaluators or (), names_of(judges), judge)
    with cancelled_by_sigterm(), _printing(rule, json=json, header=header) as show:
        done = await client.evaluations.process_stream(
            rule,
            evaluators=found,
            max_concurrency=max_concurrency,
            labels=labels,
            timeout=timeout,
            worker=worker,
            take_over=take_over,
            until_caught_up=once,
            on_evaluated=show,
        )
    if done.waiting:
        why = f": {done.error.message}" if done.error else ""
        raise CommandError(one_line(f"{done.waiting:,} runs wait for another attempt{why}"))


def find_evaluators(paths: Iterable[str], judges: list[str], model: str | None) -> "list[Evaluator[Any, Any, Any]]":
    """Import evaluators by `package.module:name`, and create LLM judges by name; a model alone selects all of these.

    Raises a usage error for a wrong name, and CommandError if a package is missing.
    """
    try:
        from lavant.client import evals
    except ModuleNotFoundError as error:
        raise CommandError(f"{error.name} is missing: pip install 'lavant[evals]'") from None
    found = [evaluator for path in paths for evaluator in _import(path)]
    if not found and not judges:
        if model is None:
            raise typer.BadParameter("no evaluators: pass --evaluators package.module:name, or --judge MODEL")
        judges = [*JUDGES]
    for name in judges:
        if name not in (*JUDGES, "clearness"):  # SteelThread's name of clarity
            raise typer.BadParameter(f"--judges must be of {', '.join(JUDGES)}, not {name!r}")
    try:
        return found + [getattr(evals, name)(model) for name in judges]
    except ValueError:
        raise typer.BadParameter("--judges need a model: pass --judge MODEL, or set LAVANT_JUDGE_MODEL") from None


def _import(path: str) -> "list[Evaluator[Any, Any, Any]]":
    module_name, _, name = path.partition(":")
    if not module_name or not name.isidentifier():
        raise typer.BadParameter(f"--evaluators must be package.module:name, not {path!r}")
    if (folder := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, folder)
    try:
        found = getattr(import_module(module_name), name)
    except ModuleNotFoundError as error:
        raise CommandError(f"{path}: {error.name} is missing: install it, or run in the folder that has it") from None
    except AttributeError:
        raise typer.BadParameter(f"--evaluators: {module_name} has no {name}") from None
    from pydantic_evals.evaluators import Evaluator

    try:
        created = found() if isinstance(found, type) else found
    except TypeError as error:
        raise typer.BadParameter(f"--evaluators: {path} cannot be created: {error}") from None
    several = list(created) if isinstance(created, Iterable) else [created]
    if not several or not all(isinstance(one, Evaluator) for one in several):
        raise typer.BadParameter(f"--evaluators: {path} is neither an evaluator of pydantic-evals nor a list of them")
    return several


@contextmanager
def _printing(rule: str, *, json: bool, header: bool) -> Iterator[Callable[[EvaluatedRun], None]]:
    """Print each evaluated run, and in a terminal how many there were."""
    if json or not sys.stdout.isatty():
        _EVALUATED.print_header(json=json, header=header)
        yield lambda evaluated: _EVALUATED.print_line(evaluated, json=json)
        return
    console = Console(highlight=False, markup=False, emoji=False)
    succeeded = failed = 0

    def status() -> Text:
        failures = f", {failed:,} failed" if failed else ""
        return Text(f"rule {one_line(rule)}: {succeeded:,} evaluated{failures}", "bold")

    def show(evaluated: EvaluatedRun) -> None:
        nonlocal succeeded, failed
        succeeded, failed = succeeded + (evaluated.error is None), failed + (evaluated.error is not None)
        console.print(cut(_line(evaluated), console.width))
        spinner.update(text=status())

    spinner = Spinner("dots", status(), style="cyan")
    with Live(spinner, console=console, transient=True, redirect_stdout=False, redirect_stderr=False):
        yield show
    console.print(status())


def _line(evaluated: EvaluatedRun) -> Text:
    name = f"{evaluated.run.id}  {one_line(evaluated.run.name)}  "
    if evaluated.error is not None:
        return Text("✗ ", "red").append(name, "not red").append(one_line(evaluated.error.message))
    failed = any(score.error for score in evaluated.scores)
    mark = Text("! " if failed else "✓ ", "yellow" if failed else "green").append(name, "default")
    took = seconds(evaluated.duration.total_seconds())
    return mark.append_text(scores_text(score.to_proto() for score in evaluated.scores)).append(f"  {took}", "dim")


def _row(evaluated: EvaluatedRun) -> list[str]:
    error = evaluated.error
    scores = " ".join(map(score_text, evaluated.scores)) if error is None else f"failed: {error.message}"
    return [evaluated.run.id, evaluated.run.name, scores]


_EVALUATED = Listing(columns=("run", "name", "scores"), row=_row, empty="")
