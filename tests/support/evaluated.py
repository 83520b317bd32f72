"""Datasets, tasks and evaluators that evaluations are tested with."""

import asyncio
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic_evals import Case, Dataset
from pydantic_evals.evaluators import EqualsExpected, Evaluator, EvaluatorContext

from lavant.client import AsyncClient


@dataclass
class Length(Evaluator[Any, Any, Any]):
    """How long the output is."""

    version: str = "1"
    long: int = 5

    def evaluate(self, ctx: EvaluatorContext[Any, Any, Any]) -> dict[str, float | str]:
        return {"length": len(ctx.output), "size": "long" if len(ctx.output) >= self.long else "short"}

    def get_evaluator_version(self) -> str:
        return self.version


@dataclass
class Brevity(Evaluator[Any, Any, Any]):
    """Length of the output, of which less is better."""

    higher_is_better: ClassVar[bool] = False

    def evaluate(self, ctx: EvaluatorContext[Any, Any, Any]) -> int:
        return len(ctx.output)


@dataclass
class Broken(Evaluator[Any, Any, Any]):
    """Fails."""

    def evaluate(self, ctx: EvaluatorContext[Any, Any, Any]) -> bool:
        raise LookupError("no judge")


def cities(*names: str) -> Dataset[Any, Any, Any]:
    """Cases whose expected output is their name in capitals."""
    cases = [Case[Any, Any, Any](name=name, inputs=name, expected_output=name.upper()) for name in names]
    return Dataset(name="cities", cases=cases, evaluators=[EqualsExpected()])


def shout(city: str) -> str:
    """A task that is always right."""
    return city.upper()


class Stuck:
    """A task that is always right, but waits at one city. `calls` are the cities that it was asked for."""

    def __init__(self, at: str = "") -> None:
        self.calls: list[str] = []
        self.waits = asyncio.Event()
        self.goes_on = asyncio.Event()
        self._at = at

    async def __call__(self, city: str) -> str:
        self.calls.append(city)
        if city == self._at:
            self.waits.set()
            await self.goes_on.wait()
        return city.upper()


async def stored_rows(client: AsyncClient, evaluation_id: str) -> list[tuple[str, int]]:
    """All rows that a log holds, twice what it holds twice."""
    events = client.runs.events(evaluation_id, types=["row_finished"])
    return [(event.proto.row_finished.row_id, event.proto.row_finished.iteration) async for event in events]
