"""Runs datasets of pydantic-evals as evaluations, and goes on with those that were cut off."""

import asyncio
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from pydantic_evals import Case, Dataset
from pydantic_evals.evaluators import Evaluator, EvaluatorContext
from pydantic_evals.lifecycle import CaseLifecycle
from typing_extensions import override

from lavant.client import _scope
from lavant.client._async.connection import Connection
from lavant.client._async.producer import AsyncRunProducer
from lavant.client._async.runs import AsyncRuns
from lavant.client._comparison import compare
from lavant.client._evaluations import Evaluation
from lavant.client._ids import new_id
from lavant.client._models import RunResult
from lavant.client._requests import create_request
from lavant.client._rows import Row, summary_of
from lavant.client.integrations._evaluation_lives import find_lives, next_life, overtaken, read_lives
from lavant.client.integrations._evaluation_plan import Key, PlannedRow, Stored, check_unchanged, plan_of, plan_rows
from lavant.client.integrations._evaluation_row import Report, drop_odd_numbers, linked, row_of
from lavant.client.integrations._first_failure import first_failure
from lavant.client.integrations._tool_stubs import Stubs, begin_row
from lavant.v1.event_pb2 import EvaluationPlan, Event, RowFinished
from lavant.v1.run_pb2 import RUN_STATE_SUCCEEDED

_STORE_TIMEOUT = 60.0  # seconds that a row may take to be durable
NewLifecycle = Callable[[Case[Any, Any, Any]], CaseLifecycle[Any, Any, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What `AsyncEvaluations.run` is given. Raises ValueError for what makes no sense."""

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
                raise TypeError("task must be a function, not the coroutine that a call of it gives: pass it uncalled")
            raise TypeError(f"task must be a function of a case's inputs, not a {type(self.task).__name__}")
        for evaluator in self.evaluators:
            if not isinstance(evaluator, Evaluator):
                raise TypeError(f"evaluators must be evaluators of pydantic-evals, not a {_kind(evaluator)}")
        for name, number in (("iterations", self.iterations), ("max_concurrency", self.max_concurrency)):
            if number is not None and number < 1:
                raise ValueError(f"{name} must be 1 or more, not {number}")
        if self.stubs.answers and not self.agents:
            raise ValueError("stubs stand in for an agent's tools: pass the agent that the task runs, as agent=")
        if self.stubs.passthrough and not self.stubs.answers:
            raise ValueError("passthrough= names tools that run beside stubs: there are no stubs")
        self.stubs.check(self.agents)

    async def run(self, connection: Connection, runs: AsyncRuns) -> Evaluation:
        """Run the rows that are not stored, and return all of them."""
        planned = plan_rows(self.dataset, self.iterations)
        plan = plan_of(self.dataset, self.iterations, self._all_evaluators)
        compared_with = await read_lives(runs, [self.baseline] if self.baseline else [])
        evaluation_id = self.evaluation_id or new_id()
        lives = await find_lives(connection, evaluation_id) if self.evaluation_id else []
        stored = await read_lives(runs, [run.run_id for run in lives])
        check_unchanged(evaluation_id, stored, plan, planned)
        if lives and lives[-1].state == RUN_STATE_SUCCEEDED:
            life, rows = lives[-1].run_id, stored.rows
        else:
            request = create_request(self.name, evaluation_id, "evaluation", self.labels, "", "", self.producer_timeout)
            producer = next_life(connection, request, lives, plan)
            with overtaken(producer.id):
                life, rows = producer.id, await self._complete(producer, runs, stored, plan, planned)
        run = await runs.get(life)
        done = [rows[row.key] for row in planned if row.key in rows]
        made = Evaluation.from_result(run.result or RunResult(run_id=life, state=run.state), done)
        if self.baseline is None:
            return made
        return made.model_copy(update={"comparison": compare(done, compared_with.rows.values())})

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
            # Once its first event is durable, nobody else adds a row; others may have, since `stored` was read.
            await producer.flush(_STORE_TIMEOUT)
            own = await read_lives(runs, [producer.id])
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
        left.cases = [row.case for row in missing]  # Of one name for each iteration, which the constructor refuses.
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
    """Publishes rows, and how many there are."""

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
        """Tell how many there are."""
        await self._run.progress("rows", len(self.rows), self._total)


class _RowLifecycle(CaseLifecycle[Any, Any, Any]):
    """Records a row behind what the user's own lifecycle does."""

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
        self._own = self._new_own(self.case)  # Here, where what it raises is an error of the row.
        await self._own.setup()

    @override
    async def prepare_context(self, ctx: EvaluatorContext[Any, Any, Any]) -> EvaluatorContext[Any, Any, Any]:
        self._evaluated = tuple(self._scope.started)  # what starts from here on are runs of evaluators
        return await self._own.prepare_context(ctx) if self._own else ctx

    @override
    async def teardown(self, result: Report | None) -> None:
        try:
            if result is not None:  # None: it was cancelled, and is to be run again.
                evaluated = self._scope.started if self._evaluated is None else self._evaluated
                await self._recorder.record(linked(row_of(self._row, result), evaluated))
                drop_odd_numbers(result)
        finally:
            if self._own is not None:
                await self._own.teardown(result)


def _kind(value: object) -> str:
    return (
        f"class ({value.__name__}): make one, as in {value.__name__}()"
        if isinstance(value, type)
        else type(value).__name__
    )


async def _watch(producer: AsyncRunProducer) -> None:
    """Raise RunCancelled once somebody asks the evaluation to stop."""
    await producer.wait_cancelled()
    producer.raise_if_cancelled()
