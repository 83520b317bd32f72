"""Evaluation of a dataset of pydantic-evals, continued where an earlier attempt was interrupted."""

import asyncio
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from pydantic_evals import Case, Dataset
from pydantic_evals.evaluators import Evaluator, EvaluatorContext
from pydantic_evals.lifecycle import CaseLifecycle
from typing_extensions import override

from lavant.client._async.api.runs import AsyncRuns
from lavant.client._async.producer import AsyncRunProducer
from lavant.client._async.transport import Connection
from lavant.client._publishing import scope as _scope
from lavant.client._publishing.requests import create_request
from lavant.client._wire.ids import new_id
from lavant.client.evals.outages import first_failure
from lavant.client.evals.run.attempts import explained, find_attempts, next_attempt, read_attempts
from lavant.client.evals.run.plan import Key, PlannedRow, Stored, check_unchanged, plan_of, plan_rows
from lavant.client.evals.run.rows import Report, drop_non_finite, linked, row_of
from lavant.client.evals.run.stubs import Stubs, begin_row
from lavant.client.evaluations import Evaluation, Row, compare, summary_of
from lavant.client.models import RunResult
from lavant.v1.event_pb2 import EvaluationPlan, Event, RowFinished
from lavant.v1.run_pb2 import RUN_STATE_SUCCEEDED

_STORE_TIMEOUT = 60.0  # seconds that a row may take to be durable
NewLifecycle = Callable[[Case[Any, Any, Any]], CaseLifecycle[Any, Any, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetEvaluation:
    """Arguments of `AsyncEvaluations.run`. Raises ValueError or TypeError for invalid ones."""

    dataset: Dataset[Any, Any, Any]
    task: Callable[[Any], Any]
    name: str
    iterations: int
    evaluators: Sequence[Evaluator[Any, Any, Any]]
    labels: Mapping[str, str]
    max_concurrency: int | None
    evaluation_id: str | None
    baseline: str | None
    stubs: Stubs
    agents: Sequence[Any]
    producer_timeout: float | None
    retry_task: Mapping[str, Any] | None
    retry_evaluators: Mapping[str, Any] | None
    lifecycle: NewLifecycle | None

    def __post_init__(self) -> None:
        if not isinstance(self.dataset, Dataset):
            given = type(self.dataset).__name__
            raise TypeError(
                f"dataset must be a Dataset of pydantic-evals, as in Dataset(name=..., cases=[...]), not a {given}"
            )
        if not callable(self.task):
            if inspect.iscoroutine(self.task):
                self.task.close()
                raise TypeError("task must be a function, not a coroutine: pass the function without calling it")
            raise TypeError(f"task must be a function of a case's inputs, not a {type(self.task).__name__}")
        for evaluator in self.evaluators:
            if not isinstance(evaluator, Evaluator):
                raise TypeError(f"evaluators must be evaluators of pydantic-evals, not a {_kind(evaluator)}")
        for name, number in (("iterations", self.iterations), ("max_concurrency", self.max_concurrency)):
            if number is not None and number < 1:
                raise ValueError(f"{name} must be 1 or more, not {number}")
        if self.stubs.answers and not self.agents:
            raise ValueError("stubs replace an agent's tools: pass the agent that the task runs, as agent=")
        if self.stubs.passthrough and not self.stubs.answers:
            raise ValueError("passthrough= names tools that run beside stubs, but there are no stubs")
        self.stubs.check(self.agents)

    async def run(self, connection: Connection, runs: AsyncRuns) -> Evaluation:
        """Run the rows that are not stored yet; return the evaluation with all rows."""
        planned = plan_rows(self.dataset, self.iterations, self._all_evaluators)
        plan = plan_of(self.dataset, self.iterations, self._all_evaluators)
        baseline = await read_attempts(runs, [self.baseline] if self.baseline else [])
        evaluation_id = self.evaluation_id or new_id()
        attempts = await find_attempts(connection, evaluation_id) if self.evaluation_id else []
        stored = await read_attempts(runs, [run.run_id for run in attempts])
        check_unchanged(evaluation_id, stored, plan, planned)
        if attempts and attempts[-1].state == RUN_STATE_SUCCEEDED:
            run_id, rows = attempts[-1].run_id, stored.rows
        else:
            request = create_request(self.name, evaluation_id, "evaluation", self.labels, "", "", self.producer_timeout)
            producer = next_attempt(connection, request, attempts, plan)
            with explained(producer.id):
                run_id, rows = producer.id, await self._complete(producer, runs, stored, plan, planned)
        run = await runs.get(run_id)
        done = [rows[row.key] for row in planned if row.key in rows]
        evaluation = Evaluation.from_result(run.result or RunResult(run_id=run_id, state=run.state), done)
        if self.baseline is None:
            return evaluation
        return evaluation.model_copy(update={"comparison": compare(done, baseline.rows.values())})

    @property
    def _all_evaluators(self) -> list[Evaluator[Any, Any, Any]]:
        return [*self.dataset.evaluators, *self.evaluators]

    async def _complete(
        self,
        producer: AsyncRunProducer,
        runs: AsyncRuns,
        stored: Stored,
        plan: EvaluationPlan,
        planned: Sequence[PlannedRow],
    ) -> dict[Key, Row]:
        async with producer:
            # Once the first event is durable, no other process can add rows; before, one may have added some since
            # `stored` was read.
            await producer.flush(_STORE_TIMEOUT)
            own = await read_attempts(runs, [producer.id])
            check_unchanged(producer.id, own, plan, planned)
            for key, earlier in stored.events.items():
                if key not in own.events:
                    await producer.publish(Event(event_time=earlier.event_time, row_finished=earlier.row_finished))
            recorder = _Recorder(producer, stored.rows | own.rows, len(planned))
            try:
                if recorder.rows:
                    await recorder.report()
                await self._evaluate(producer, [row for row in planned if row.key not in recorder.rows], recorder)
            finally:
                producer.summary = summary_of(recorder.rows.values())
        return recorder.rows

    async def _evaluate(self, producer: AsyncRunProducer, missing: Sequence[PlannedRow], recorder: "_Recorder") -> None:
        left = Dataset[Any, Any, Any](name=self.dataset.name, cases=[], evaluators=self._all_evaluators)
        left.cases = [row.case for row in missing]  # the constructor refuses the same name for each iteration
        rows = {id(row.case): row for row in missing}
        try:
            async with asyncio.TaskGroup() as group:
                watching = group.create_task(_watch(producer))
                with self.stubs.installed(self.agents):
                    await left.evaluate(
                        self.task,
                        name=self.name,
                        max_concurrency=self.max_concurrency,
                        progress=False,
                        retry_task=cast("Any", self.retry_task),
                        retry_evaluators=cast("Any", self.retry_evaluators),
                        lifecycle=lambda case: _RowLifecycle(case, rows[id(case)], recorder, self.lifecycle),
                    )
                watching.cancel()
        except BaseExceptionGroup as failures:
            raise first_failure(failures) from None


class _Recorder:
    """Publisher of rows and of their number."""

    def __init__(self, run: AsyncRunProducer, rows: dict[Key, Row], total: int) -> None:
        self.rows = rows
        self._run = run
        self._total = total

    @property
    def run_id(self) -> str:
        """The run that the rows are published to."""
        return self._run.id

    async def record(self, row: RowFinished) -> None:
        """Publish a row; return once it is durable."""
        await self._run.publish(Event(row_finished=row))
        self.rows[row.row_id, row.iteration] = Row.from_proto(row)
        await self.report()
        await self._run.flush(_STORE_TIMEOUT)

    async def report(self) -> None:
        """Publish how many rows are done."""
        await self._run.progress("rows", len(self.rows), self._total)


class _RowLifecycle(CaseLifecycle[Any, Any, Any]):
    """Lifecycle that wraps the user's, and records the row after it."""

    def __init__(
        self, case: Case[Any, Any, Any], row: PlannedRow, recorder: _Recorder, new_own: NewLifecycle | None
    ) -> None:
        super().__init__(case)
        self._row = row
        self._recorder = recorder
        self._new_own = new_own or CaseLifecycle
        self._own: CaseLifecycle[Any, Any, Any] | None = None
        self._scope = _scope.Scope(None, "", None)
        self._evaluated: tuple[object, ...] | None = None

    @override
    async def setup(self) -> None:
        begin_row(self._row.original, self._row.key[1])
        self._scope = _scope.enter_apart(self._recorder.run_id)
        self._own = self._new_own(self.case)  # not in __init__: here, what it raises is an error of the row
        await self._own.setup()

    @override
    async def prepare_context(self, ctx: EvaluatorContext[Any, Any, Any]) -> EvaluatorContext[Any, Any, Any]:
        self._evaluated = tuple(self._scope.started)  # runs that start later are of evaluators
        return await self._own.prepare_context(ctx) if self._own else ctx

    @override
    async def teardown(self, result: Report | None) -> None:
        try:
            if result is not None:  # without one, the row was cancelled: another attempt runs it
                evaluated = self._scope.started if self._evaluated is None else self._evaluated
                await self._recorder.record(linked(row_of(self._row, result), evaluated))
                drop_non_finite(result)
        finally:
            if self._own is not None:
                await self._own.teardown(result)


def _kind(value: object) -> str:
    return (
        f"class ({value.__name__}): create one, as in {value.__name__}()"
        if isinstance(value, type)
        else type(value).__name__
    )


async def _watch(producer: AsyncRunProducer) -> None:
    """Raise RunCancelled once a cancellation of the evaluation is requested."""
    await producer.wait_cancelled()
    producer.raise_if_cancelled()
