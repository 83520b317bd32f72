"""Evaluations: reading and comparing them."""

from collections.abc import AsyncIterator
from typing import Any

from lavant.client._async.evaluating import Evaluating
from lavant.client._comparison import ScoreComparison, compare
from lavant.client._evaluations import Evaluation, EvaluationEvent, EvaluationProjection
from lavant.client._rows import Row, count_failed, mean_scores
from lavant.client._status import raise_unless_succeeded


class AsyncEvaluations(Evaluating):
    """What can be done with evaluations; found at `client.evaluations`. Each is a run of kind "evaluation".

    Example:
        async for event in client.evaluations.stream(evaluation_id):
            if event.type == "row_complete":
                print(event.row.score)
            elif event.type == "final":
                print("done:", event.result.accuracy)
                break
    """

    async def stream(self, evaluation_id: str, **options: Any) -> AsyncIterator[EvaluationEvent]:
        """Give an evaluation's `status`, `progress`, `row_complete`, and last its `final` or `error`.

        Options are those of `client.runs.stream`: consumer, timeout, idle_timeout ... Reconnects inside. A stream
        that begins with a resume token counts in its end only the rows that it has read, where the run tells no sum.
        """
        projection = EvaluationProjection(evaluation_id)
        async with self._runs.stream(evaluation_id, **{"deltas": "none", **options}) as stream:
            async for event in stream:
                for told in projection.add(event):
                    yield told

    async def get(self, evaluation_id: str) -> Evaluation:
        """Read an evaluation as far as it is: one that has not ended has no sums but those of its rows."""
        rows = await self._rows(evaluation_id)
        run = await self._runs.get(evaluation_id)
        if run.result is not None:
            return Evaluation.from_result(run.result, rows)
        made = Evaluation(id=run.id, state=run.state, rows=tuple(rows))
        return made.model_copy(update=_sums(rows))

    async def wait(self, evaluation_id: str, timeout: float | None = None) -> Evaluation:
        """Wait for an evaluation's end; return it with its rows.

        Raises RunFailed, RunCancelled, RunTimedOut or RunAbandoned as it ended, WaitTimeout after `timeout` seconds.
        """
        run = await self._runs.wait(evaluation_id, timeout)
        if run.result is not None:
            raise_unless_succeeded(run.result)
        return await self.get(evaluation_id)

    async def compare(self, evaluation_id: str, baseline_id: str) -> tuple[ScoreComparison, ...]:
        """Compare an evaluation with an earlier one, score by score."""
        return compare(await self._rows(evaluation_id), await self._rows(baseline_id))

    async def _rows(self, evaluation_id: str) -> list[Row]:
        events = self._runs.events(evaluation_id, types=["row_finished"], page_size=1_000)
        return [Row.from_proto(event.data) async for event in events if event.type == "row_finished"]


def _sums(rows: list[Row]) -> dict[str, Any]:
    failed = count_failed(rows)
    return {"rows_succeeded": len(rows) - failed, "rows_failed": failed, "mean_scores": mean_scores(rows)}
