"""Running evaluations: needs asyncio, as pydantic-evals does."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lavant.client._async.connection import Connection
from lavant.client._async.runs import AsyncRuns
from lavant.client._evaluations import Evaluation

if TYPE_CHECKING:
    from pydantic_ai import Agent
    from pydantic_evals import Dataset
    from pydantic_evals.evaluators import Evaluator


class Evaluating:
    """Runs evaluations over one connection."""

    def __init__(self, connection: Connection, runs: AsyncRuns) -> None:
        self._connection = connection
        self._runs = runs

    async def run(
        self,
        dataset: "Dataset[Any, Any, Any]",
        task: Callable[[Any], Any] | Callable[[Any], Awaitable[Any]],
        *,
        name: str | None = None,
        iterations: int = 1,
        evaluators: "Sequence[Evaluator[Any, Any, Any]]" = (),
        labels: Mapping[str, str] | None = None,
        max_concurrency: int | None = None,
        evaluation_id: str | None = None,
        baseline: str | None = None,
        stubs: Mapping[str, Callable[..., Any]] | None = None,
        agent: "Agent[Any, Any] | Sequence[Agent[Any, Any]]" = (),
    ) -> Evaluation:
        """Run a dataset of pydantic-evals, `iterations` times each case, and publish each row as it is done.

        Needs `pip install 'lavant[evals]'`. Tasks and evaluators that fail make rows with errors; all other
        scores of such a row stay. With the `evaluation_id` of an evaluation that was killed, only the rows that
        it has not published are run: give it one whenever that matters. Cases are known by their names, those
        without one by their place and inputs. With the id of an earlier one as its `baseline`, what is
        returned has the `comparison` with it. `stubs` answer calls of the tools of their names in the `agent`s of
        pydantic-ai that the task runs, with the tools' arguments, and a StubCall if they ask for one.

        Raises ValueError if that evaluation was of other cases or inputs, RunSealed if it has ended, and what
        keeps rows from being published.

        Example:
            dataset = Dataset(name="cities", cases=[Case(name="oslo", inputs="Oslo", expected_output="OSLO")])
            evaluation = await client.evaluations.run(dataset, str.upper, evaluators=[EqualsExpected()])
            assert evaluation.mean_scores == {"EqualsExpected": 1.0}
        """
        from lavant.client.integrations._pydantic_evals import evaluate  # Needs an extra.

        return await evaluate(
            self._connection,
            self._runs,
            dataset,
            task,
            name=name,
            iterations=iterations,
            evaluators=evaluators,
            labels=labels,
            max_concurrency=max_concurrency,
            evaluation_id=evaluation_id,
            baseline=baseline,
            stubs=stubs or {},
            agents=[*agent] if isinstance(agent, Sequence) else [agent],
        )
