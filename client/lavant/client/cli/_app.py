"""The commands, and how they end."""

from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Annotated, Any, cast

import typer

from lavant.client.cli._backup import backup, restore
from lavant.client.cli._cancel import cancel
from lavant.client.cli._copy import copy
from lavant.client.cli._evaluate import evaluate
from lavant.client.cli._evaluations import evaluations
from lavant.client.cli._export import export
from lavant.client.cli._failures import INTERRUPTED, USAGE
from lavant.client.cli._import import import_
from lavant.client.cli._negative_numbers import TakesNegativeNumbers
from lavant.client.cli._rules import rules
from lavant.client.cli._runs import runs
from lavant.client.cli._score import score
from lavant.client.cli._scores import scores
from lavant.client.cli._serve import serve
from lavant.client.cli._store import store
from lavant.client.cli._tail import tail
from lavant.client.cli._text import one_line
from lavant.client.cli._wait import wait

# The usage errors of typer, whichever version of click it is built on.
_UsageError = cast("type[Exception]", typer.BadParameter.__mro__[1])

app = typer.Typer(name="lavant", rich_markup_mode="markdown", context_settings={"help_option_names": ["--help", "-h"]})


def run(arguments: Sequence[str]) -> int:
    """Run a command; returns the exit status. Wrong usage is told on one line."""
    try:
        status = app(arguments or ["--help"], prog_name="lavant", standalone_mode=False)
    except _UsageError as error:
        return _explain(error)
    except (typer.Abort, KeyboardInterrupt):
        return INTERRUPTED
    return status if isinstance(status, int) else 0


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"lavant {version('lavant')}")
        raise typer.Exit


@app.callback()
def _commands(
    _version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", is_eager=True, callback=lambda on: _print_version(on)),
    ] = False,
) -> None:
    """Durable, resumable streams of what agents do."""


def _explain(error: Any) -> int:
    command = error.ctx.command_path if error.ctx else "lavant"
    typer.echo(f"lavant: {one_line(error.format_message()).rstrip('.')}: see `{command} --help`", err=True)
    return USAGE


def _add(command: Callable[..., None], *examples: str, name: str | None = None, **settings: Any) -> None:
    epilog = "\n\n".join(("Examples:", *examples)) if examples else None
    app.command(name, epilog=epilog, **settings)(command)


_add(
    serve,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)
_add(
    runs,
    "lavant runs --state running --label team=search",
    "lavant runs --since 2h --json | jq .id",
    "lavant runs --watch",
)
_add(wait, "lavant wait 0199... --timeout 300 && echo well done")
_add(
    evaluations,
    "lavant evaluations --since 7d",
    "lavant evaluations 0199... --min-score correctness=0.8 --timeout 600",
)
_add(
    evaluate,
    "lavant evaluate quality --judge openai:gpt-5 --judges correctness,success",
    "lavant evaluate quality --evaluators my_package.judges:all_of_them --once",
)
_add(
    score,
    "lavant score 0199... helpful true --by ada",
    "lavant score 0199... correctness 0.4 --explanation 'It was warm.'",
    "lavant score 0199... sentiment -0.7",
    cls=TakesNegativeNumbers,
)
_add(
    scores,
    "lavant scores --rule quality --since 1d",
    "lavant scores --by name,version --bucket 1d --since 30d",
    "lavant scores --rule quality --version 2 --against 1",
)
_add(cancel, "lavant cancel 0199... --reason 'too slow'")
_add(
    export,
    "lavant export 0199... > run.jsonl",
    "lavant export --all | lavant import --target other:7447",
    "lavant export --name 'weather*' --since 7d -o week.jsonl",
)
_add(import_, "lavant import week.jsonl --dry-run", "lavant import - < week.jsonl", name="import")
_add(
    tail,
    "lavant tail",
    "lavant tail 0199... --from now",
    "lavant tail 0199... --json --types tool_call_finished",
)
_add(
    backup,
    "lavant backup /backups/lavant.db",
    "lavant backup --store sqlite:////var/lib/lavant.db /backups/monday.db",
)
_add(restore, "lavant restore /backups/lavant.db --store sqlite:////var/lib/lavant.db --force")
_add(
    copy,
    "lavant copy sqlite:///lavant.db nats://a:4222,b:4222,c:4222",
    "lavant copy sqlite:////var/lib/lavant.db nats://a:4222,b:4222,c:4222/prod --keep-epoch",
)
app.add_typer(rules)
app.add_typer(store)
