"""The command line: its commands, and their exit statuses."""

from collections.abc import Sequence
from typing import Annotated, Any, cast

import typer

from lavant.client.cli.groups import Entry, TakesNegativeNumbers, lazy_group
from lavant.client.cli.statuses import INTERRUPTED, USAGE
from lavant.client.cli.untrusted import one_line

# The server is part of the same distribution, but its dependencies may be missing: its commands import them only when
# they run, so that they are listed in any case.
from lavant.server.commands import SERVER

# The base of typer's usage errors, which comes from click or from a copy of it, depending on the version of typer.
_UsageError = cast("type[Exception]", typer.BadParameter.__mro__[1])


def _entry(panel: str, home: str, summary: str, *examples: str, name: str = "", **settings: Any) -> Entry:
    """Return the entry of a command of the client, which is named as its function unless `name` is given."""
    return Entry(
        name=name or home.partition(":")[2],
        panel=panel,
        home=f"lavant.client.cli.{home}",
        summary=summary,
        examples=examples,
        settings=settings,
    )


_RUNS = (
    _entry(
        "Runs",
        "runs:runs",
        "List runs, the newest first.",
        "lavant runs --state running --label team=search",
        "lavant runs --since 2h --json | jq .id",
        "lavant runs --watch",
    ),
    _entry(
        "Runs",
        "tail.command:tail",
        "Watch a run: text, tools, steps, progress and outcome.",
        "lavant tail",
        "lavant tail 0199... --from now",
        "lavant tail 0199... --json --types tool_call_finished",
    ),
    _entry(
        "Runs",
        "runs:wait",
        "Wait until a run has ended, and report its outcome.",
        "lavant wait 0199... --timeout 300 && echo succeeded",
    ),
    _entry(
        "Runs",
        "runs:cancel",
        "Request that a run's producer stops.",
        "lavant cancel 0199... --reason 'too slow'",
    ),
    _entry(
        "Runs",
        "export:export",
        "Export runs as JSON lines, which `lavant import` reads.",
        "lavant export 0199... > run.jsonl",
        "lavant export --all | lavant import --target other:7447",
        "lavant export --name 'weather*' --since 7d -o week.jsonl",
    ),
    _entry(
        "Runs",
        "import_:import_",
        "Import runs that `lavant export` wrote.",
        "lavant import week.jsonl --dry-run",
        "lavant import - < week.jsonl",
        name="import",
    ),
)
_EVALUATION = (
    _entry(
        "Evaluation",
        "evaluations:evaluations",
        "List evaluations, or check one against bounds.",
        "lavant evaluations --since 7d",
        "lavant evaluations 0199... --min-score correctness=0.8 --timeout 600",
    ),
    _entry(
        "Evaluation",
        "evaluate:evaluate",
        "Evaluate the runs that a rule selects, as they finish.",
        "lavant evaluate quality --judge openai:gpt-5 --judges correctness,success",
        "lavant evaluate quality --evaluators my_package.evaluators:all_of_them --once",
    ),
    _entry(
        "Evaluation",
        "scores:score",
        "Record a score of a run, such as feedback.",
        "lavant score 0199... helpful true --by ada",
        "lavant score 0199... correctness 0.4 --explanation 'It was warm.'",
        "lavant score 0199... sentiment -0.7",
        cls=TakesNegativeNumbers,
    ),
    _entry(
        "Evaluation",
        "scores:scores",
        "List, aggregate or compare scores.",
        "lavant scores --rule quality --since 1d",
        "lavant scores --by name,version --bucket 1d --since 30d",
        "lavant scores --rule quality --version 2 --against 1",
    ),
    _entry("Evaluation", "rules:rules", "Create and change rules of online evaluation."),
)
_ACCESS = (
    _entry("Access", "keys:keys", "Create, list and revoke API keys."),
    _entry("Access", "tokens:tokens", "Create access tokens for browsers."),
)

app = lazy_group("lavant", *_RUNS, *_EVALUATION, *_ACCESS, *SERVER)


def run(arguments: Sequence[str]) -> int:
    """Run a command; return the exit status. Wrong usage is reported on one line."""
    try:
        status = app(arguments or ["--help"], prog_name="lavant", standalone_mode=False)
    except _UsageError as error:
        return _explain(error)
    except (typer.Abort, KeyboardInterrupt):
        return INTERRUPTED
    return status if isinstance(status, int) else 0


def _explain(error: Any) -> int:
    command = error.ctx.command_path if error.ctx else "lavant"
    typer.echo(f"lavant: {one_line(error.format_message()).rstrip('.')}: see `{command} --help`", err=True)
    return USAGE


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version  # slow to import, and needed here alone

        typer.echo(f"lavant {version('lavant')}")
        raise typer.Exit


@app.callback()
def _main(
    _version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version),
    ] = False,
) -> None:
    """Durable, resumable streams of what agents do."""
