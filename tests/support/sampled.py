"""Runs, rules and evaluators that online evaluation is tested with."""

import asyncio
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from pydantic_evals.evaluators import EvaluationReason, Evaluator, EvaluatorContext

from lavant.client import AsyncClient

RULE = "quality"


@dataclass
class Cold(Evaluator[Any, Any, Any]):
    """Whether the answer is that it is cold."""

    def evaluate(self, ctx: EvaluatorContext[Any, Any, Any]) -> EvaluationReason:
        return EvaluationReason(value=ctx.output == "cold", reason=f"it said {ctx.output}")


@dataclass
class Length(Evaluator[Any, Any, Any]):
    """How long the answer is."""

    async def evaluate(self, ctx: EvaluatorContext[Any, Any, Any]) -> float:
        return float(len(ctx.output))


@dataclass
class Broken(Evaluator[Any, Any, Any]):
    """Fails."""

    def evaluate(self, ctx: EvaluatorContext[Any, Any, Any]) -> bool:
        raise LookupError("no judge")


@dataclass
class Hanging(Evaluator[Any, Any, Any]):
    """Never answers; sets an event when it is asked."""

    began: asyncio.Event = field(default_factory=asyncio.Event, repr=False)

    async def evaluate(self, ctx: EvaluatorContext[Any, Any, Any]) -> bool:
        self.began.set()
        await asyncio.Event().wait()
        return True


async def finish_runs(client: AsyncClient, run_ids: Iterable[str], output: str = "cold") -> None:
    """Execute a run for each id, one after the other."""
    for run_id in run_ids:
        async with client.runs.start("weather", run_id=run_id, input="Oslo", on_error="raise") as run:
            run.output = output


async def found_scores(client: AsyncClient, **wanted: Any) -> Counter[tuple[str, str]]:
    """How often each run has each score, as scores are listed."""
    return Counter([(score.run_id, score.name) async for score in client.scores.list(page_size=1_000, **wanted)])


async def result_scores(client: AsyncClient, rule_id: str = RULE) -> Counter[tuple[str, str]]:
    """How often each run has each score in the rule's results."""
    found = client.runs.list(kinds=["evaluation"], names=[rule_id], include_system_runs=True)
    evaluations = [run.id async for run in found]
    return Counter(
        [
            (event.data.subject_run_id, score.name)
            for evaluation_id in evaluations
            async for event in client.runs.events(evaluation_id, types=["row_finished"], page_size=1_000)
            if event.type == "row_finished"
            for score in event.data.scores
        ]
    )
