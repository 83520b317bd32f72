"""`lavant evaluate`: judges the runs that a rule draws."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from lavant.client import AsyncClient, JudgedRun
from lavant.client.cli import _session
from lavant.client.cli._cells import cut
from lavant.client.cli._evaluators import evaluators_of
from lavant.client.cli._failures import CommandError
from lavant.client.cli._lines import Header, print_header, print_json
from lavant.client.cli._options import ApiKey, RuleId, ScoreLabels, Target, labels_of
from lavant.client.cli._sigterm import cancelled_by_sigterm
from lavant.client.cli._tail_words import scores_text, seconds
from lavant.client.cli._text import one_line, score_text

Show = Callable[[JudgedRun], None]


def evaluate(
    rule: RuleId,
    evaluators: Annotated[
        list[str] | None,
        typer.Option(
            "--evaluators", "-e", metavar="MODULE:NAME", help="An evaluator of pydantic-evals, its class, or a list."
        ),
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(
            "--judge",
            metavar="MODEL",
            envvar="LAVANT_JUDGE_MODEL",
            help="The ready-made judges' model, by its name in pydantic-ai: openai:gpt-5.",
            show_default=False,
        ),
    ] = None,
    judges: Annotated[
        str,
        typer.Option(
            "--judges",
            metavar="NAME,...",
            help="Ready-made: correctness, completeness, clearness, success, efficiency.",
        ),
    ] = "",
    max_concurrency: Annotated[
        int, typer.Option("--max-concurrency", min=1, max=1_000, help="Judge at most so many runs at once.")
    ] = 5,
    label: ScoreLabels = None,
    timeout: Annotated[float, typer.Option(min=0, metavar="SECONDS", help="For each evaluator.")] = 60,
    once: Annotated[bool, typer.Option("--once", help="End when all that was drawn is judged.")] = False,
    worker: Annotated[
        str | None, typer.Option(metavar="NAME", help="This worker's name.", show_default="one of its own")
    ] = None,
    take_over: Annotated[bool, typer.Option("--take-over", help="End another worker of this name.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a run.")] = False,
    header: Header = False,
    target: Target = None,
    api_key: ApiKey = None,
) -> None:
    """Judge the runs that a rule draws, as they finish; any number of workers share a rule.

    Into a pipe go lines of tab-separated columns: run, its name, scores or why it could not be judged. Ctrl-C and
    SIGTERM give back what is not done: others judge it. Exit status: 0 all is judged, with --once; 1 lavant could not
    go on, or the evaluators are unavailable and runs wait, 2 wrong usage, 130 Ctrl-C, 143 SIGTERM.
    """
    labels = labels_of(label)

    async def work(client: AsyncClient) -> None:
        found = evaluators_of(evaluators or (), judges, judge)
        with cancelled_by_sigterm(), _showing(rule, json, header) as show:
            done = await client.evaluations.process_stream(
                rule,
                evaluators=found,
                max_concurrency=max_concurrency,
                labels=labels,
                timeout=timeout,
                worker=worker,
                take_over=take_over,
                until_caught_up=once,
                on_judged=show,
            )
        if done.waiting:
            why = f": {done.error.message}" if done.error else ""
            raise CommandError(one_line(f"{done.waiting:,} runs wait for another attempt{why}"))

    _session.run(work, target, api_key)


@contextmanager
def _showing(rule: str, json: bool, header: bool) -> Iterator[Show]:
    """Show each run as it is judged, and in a terminal how many were."""
    if json or not sys.stdout.isatty():
        print_header(("run", "name", "scores"), header and not json)
        yield print_json if json else _print_columns
        return
    console = Console(highlight=False, markup=False, emoji=False)
    status = _Status(rule)
    with Live(status.spinner, console=console, transient=True, redirect_stdout=False, redirect_stderr=False):

        def show(judged: JudgedRun) -> None:
            console.print(cut(_line(judged), console.width))
            status.count(judged)

        yield show
    console.print(status.text)


class _Status:
    """How many runs were judged."""

    def __init__(self, rule: str) -> None:
        self._rule = one_line(rule)
        self._judged = self._failed = 0
        self.spinner = Spinner("dots", self.text, style="cyan")

    @property
    def text(self) -> Text:
        failed = f", {self._failed:,} could not be" if self._failed else ""
        return Text(f"rule {self._rule}: {self._judged:,} judged{failed}", "bold")

    def count(self, judged: JudgedRun) -> None:
        if judged.error is None:
            self._judged += 1
        else:
            self._failed += 1
        self.spinner.update(text=self.text)


def _line(judged: JudgedRun) -> Text:
    took = seconds(judged.duration.total_seconds())
    name = f"{judged.run.id}  {one_line(judged.run.name)}  "
    if judged.error is not None:
        return Text("✗ ", "red").append(name, "not red").append(one_line(judged.error.message))
    failed = any(score.error for score in judged.scores)
    mark = Text("! " if failed else "✓ ", "yellow" if failed else "green").append(name, "default")
    return mark.append_text(scores_text(score.to_proto() for score in judged.scores)).append(f"  {took}", "dim")


def _print_columns(judged: JudgedRun) -> None:
    said = " ".join(map(score_text, judged.scores)) if judged.error is None else f"failed: {judged.error.message}"
    print("\t".join((judged.run.id, one_line(judged.run.name), one_line(said))), flush=True)
