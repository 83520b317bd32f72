"""`lavant rules create`: a new rule."""

from typing import Annotated

import typer

from lavant.client import AsyncClient
from lavant.client.cli import _session
from lavant.client.cli._alert_syntax import SYNTAX, alerts_of
from lavant.client.cli._options import ApiKey, Kinds, Labels, RuleId, States, Target, labels_of
from lavant.client.cli._text import one_line

_Seconds = Annotated[float | None, typer.Option(min=0, metavar="SECONDS", show_default=False)]
_Tokens = Annotated[int | None, typer.Option(min=0, metavar="TOKENS", show_default=False)]


def create(
    rule: RuleId,
    rate: Annotated[float, typer.Option("--rate", min=0, max=1, help="The part of the runs that is judged.")] = 1.0,
    evaluator: Annotated[
        list[str] | None,
        typer.Option("--evaluator", metavar="NAME", help="Who judges, as workers know it; may be repeated."),
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option("--name", metavar="NAME", help="Runs of this name, with * and ?; may be repeated."),
    ] = None,
    kind: Kinds = None,
    label: Labels = None,
    state: States = None,
    min_duration: _Seconds = None,
    max_duration: _Seconds = None,
    min_tokens: _Tokens = None,
    max_tokens: _Tokens = None,
    has_error: Annotated[
        bool | None, typer.Option("--error/--no-error", help="Only runs that ended with an error, or without one.")
    ] = None,
    input_contains: Annotated[str, typer.Option(metavar="TEXT", show_default=False)] = "",
    output_contains: Annotated[str, typer.Option(metavar="TEXT", show_default=False)] = "",
    salt: Annotated[str, typer.Option(metavar="TEXT", help="Draw other runs than rules of the same rate.")] = "",
    score_label: Annotated[
        list[str] | None,
        typer.Option("--score-label", metavar="KEY=VALUE", help="Add this label to the scores; may be repeated."),
    ] = None,
    max_attempts: Annotated[int, typer.Option(min=1, max=20, help="Try so often to judge a run.")] = 5,
    alert: Annotated[
        list[str] | None,
        typer.Option("--alert", metavar="ALERT", help=f"{SYNTAX}; may be repeated.", show_default=False),
    ] = None,
    paused: Annotated[bool, typer.Option("--paused", help="Draw nothing until `lavant rules resume`.")] = False,
    target: Target = None,
    api_key: ApiKey = None,
) -> None:
    """Create a rule, which sees runs that finish from now on; `lavant evaluate` judges those that it draws.

    The same may be created again. Without --kind, agents are drawn.
    """
    labels, score_labels = labels_of(label), labels_of(score_label, "--score-label")
    alerts = alerts_of(alert)

    async def work(client: AsyncClient) -> None:
        try:
            made = await client.rules.create(
                rule,
                kinds=kind or (),
                names=name or (),
                labels=labels,
                states=state or (),
                min_duration=min_duration,
                max_duration=max_duration,
                min_tokens=min_tokens,
                max_tokens=max_tokens,
                has_error=has_error,
                input_contains=input_contains,
                output_contains=output_contains,
                sample_rate=rate,
                salt=salt,
                evaluators=evaluator or (),
                score_labels=score_labels,
                enabled=not paused,
                max_attempts=max_attempts,
                alerts=alerts,
            )
        except ValueError as error:
            raise typer.BadParameter(str(error).replace("kinds", "--kind").replace("states", "--state")) from None
        print(one_line(f"{made.id} is created: its results go to {made.evaluation_id}"))

    _session.run(work, target, api_key)
