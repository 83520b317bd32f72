"""`lavant score`: what somebody says of a run."""

from typing import Annotated

import typer

from lavant.client import AsyncClient
from lavant.client.cli import _session
from lavant.client.cli._options import ApiKey, RunId, ScoreLabels, Target, labels_of
from lavant.client.cli._text import one_line

_VERDICTS = {"true": True, "false": False}


def score(
    run: RunId,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What is measured: helpful.", show_default=False)],
    value: Annotated[
        str, typer.Argument(metavar="VALUE", help="true or false, a number, or a class.", show_default=False)
    ],
    explanation: Annotated[str, typer.Option(metavar="TEXT", help="Why, for people.", show_default=False)] = "",
    by: Annotated[str, typer.Option("--by", metavar="WHO", help="Who says so.", show_default=False)] = "",
    label: ScoreLabels = None,
    score_id: Annotated[
        str | None, typer.Option("--id", metavar="ID", help="The same one is recorded once.", show_default=False)
    ] = None,
    target: Target = None,
    api_key: ApiKey = None,
) -> None:
    """Record a score on a run afterwards: feedback, or what turned out to be true."""
    labels = labels_of(label)

    async def work(client: AsyncClient) -> None:
        recorded = await client.runs.score(
            run,
            name=name,
            value=_value(value),
            explanation=explanation,
            evaluator=by,
            labels=labels,
            score_id=score_id,
        )
        print(one_line(recorded))

    _session.run(work, target, api_key)


def _value(text: str) -> float | bool | str:
    if text.lower() in _VERDICTS:
        return _VERDICTS[text.lower()]
    try:
        return float(text)
    except ValueError:
        return text
