"""Runs datasets of pydantic-evals as evaluations, and goes on with those that were killed."""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_evals import Case, Dataset
from pydantic_evals.evaluators import EvaluationResult, Evaluator
from pydantic_evals.evaluators.evaluator import EvaluatorFailure
from pydantic_evals.lifecycle import CaseLifecycle
from pydantic_evals.reporting import ReportCase, ReportCaseFailure
from typing_extensions import override

from lavant.client import _json, _payloads
from lavant.client._arguments import duration
from lavant.client._async.connection import Connection
from lavant.client._async.producer import AsyncRunProducer
from lavant.client._async.runs import AsyncRuns, create_request
from lavant.client._comparison import compare
from lavant.client._errors import RunNotFound, RunSealed
from lavant.client._evaluations import Evaluation
from lavant.client._ids import new_id
from lavant.client._models import Run
from lavant.client._options import ProducerOptions
from lavant.client._rows import Row, summary_of
from lavant.client.integrations._tool_stubs import begin_row, stubbed
from lavant.v1 import event_pb2, run_pb2
from lavant.v1.event_pb2 import Event, RowFinished

Key = tuple[str, int]
# Of what went in, what came out and what was expected: together they fit into an event.
_LARGEST = 256 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class _Planned:
    """A row to be: a case, once."""

    key: Key
    original: Case[Any, Any, Any]
    case: Case[Any, Any, Any]
    input_json: str


async def evaluate(
    connection: Connection,
    runs: AsyncRuns,
    dataset: Dataset[Any, Any, Any],
    task: Callable[[Any], Any],
    *,
    name: str | None,
    iterations: int,
    evaluators: Sequence[Evaluator[Any, Any, Any]],
    labels: Mapping[str, str] | None,
    max_concurrency: int | None,
    evaluation_id: str | None,
    baseline: str | None,
    stubs: Mapping[str, Callable[..., Any]],
    agents: Sequence[Any],
) -> Evaluation:
    """See `Evaluating.run`."""
    if iterations < 1:
        raise ValueError(f"iterations must be 1 or more, not {iterations}")
    if stubs and not agents:
        raise ValueError("stubs stand in for an agent's tools: pass the agent that the task runs, as agent=")
    compared_with = [] if baseline is None else list((await _read_rows(runs, baseline)).values())
    planned = _plan(dataset, iterations)
    all_evaluators = [*dataset.evaluators, *evaluators]
    chosen_id = evaluation_id or new_id()
    run = await _find(runs, chosen_id) if evaluation_id else None
    rows = await _read_rows(runs, chosen_id) if run is not None and run.last_sequence else {}
    _check(rows, planned, chosen_id)
    request = create_request(name or dataset.name or "evaluation", chosen_id, "evaluation", labels, "", "", None)
    started = _payloads.run_started(None, "", "")
    started.run_started.evaluation.CopyFrom(_plan_proto(dataset, len(planned), iterations, all_evaluators))
    # One producer's epochs: whoever goes on fences off the process that was thought to be dead.
    options = ProducerOptions(producer_id="evaluation", producer_epoch=time.time_ns())
    producer = AsyncRunProducer(
        connection, request, started, options, "raise", continues=run is not None and run.last_sequence > 0
    )
    async with producer:
        missing = [row for row in planned if row.key not in rows]
        recorder = _Recorder(producer, rows, len(planned))
        left = Dataset(name=dataset.name, cases=[row.case for row in missing], evaluators=all_evaluators)
        lifecycles = {row.case.name: row for row in missing}
        with stubbed(agents, stubs):
            await left.evaluate(
                task,
                name=request.name,
                max_concurrency=max_concurrency,
                progress=False,
                lifecycle=lambda case: _RowLifecycle(case, lifecycles[case.name], recorder),
            )
        producer.summary = summary_of(rows.values())
    ended = await runs.get(chosen_id)
    assert ended.result is not None  # noqa: S101 - the block's end waits until it is durable
    done = _in_order(rows, planned)
    comparison = compare(done, compared_with)
    return Evaluation.from_result(ended.result, done).model_copy(update={"comparison": comparison})


class _Recorder:
    """Publishes rows, and how many there are."""

    def __init__(self, run: AsyncRunProducer, rows: dict[Key, Row], total: int) -> None:
        self._run = run
        self._rows = rows
        self._total = total

    async def record(self, finished: RowFinished) -> None:
        """Publish a row."""
        await self._run.publish(Event(row_finished=finished))
        self._rows[finished.row_id, finished.iteration] = Row.from_proto(finished)
        await self._run.progress("rows", len(self._rows), self._total)


class _RowLifecycle(CaseLifecycle[Any, Any, Any]):
    def __init__(self, case: Case[Any, Any, Any], row: _Planned, recorder: _Recorder) -> None:
        super().__init__(case)
        self._row = row
        self._recorder = recorder

    @override
    async def setup(self) -> None:
        begin_row(self._row.original, self._row.key[1])

    @override
    async def teardown(self, result: ReportCase[Any, Any, Any] | ReportCaseFailure[Any, Any, Any] | None) -> None:
        if result is not None:  # None: it was cancelled, and is to be run again.
            await self._recorder.record(_row_of(self._row, result))


def _row_of(row: _Planned, result: ReportCase[Any, Any, Any] | ReportCaseFailure[Any, Any, Any]) -> RowFinished:
    row_id, iteration = row.key
    finished = RowFinished(
        row_id=row_id,
        iteration=iteration,
        input_json=row.input_json,
        expected_output_json=_text(result.expected_output),
    )
    if isinstance(result, ReportCaseFailure):
        kind, colon, message = result.error_message.partition(": ")
        finished.error.CopyFrom(run_pb2.Error(message=message if colon else kind, type=kind if colon else ""))
        return finished
    finished.output_json = _text(result.output)
    finished.duration.CopyFrom(duration(result.task_duration))
    for name, value in result.metrics.items():
        finished.metrics[_json.valid_text(name)] = float(value)
    given = (*result.scores.values(), *result.assertions.values(), *result.labels.values())
    finished.scores.extend(map(_score, given))
    finished.scores.extend(map(_failure, result.evaluator_failures))
    return finished


def _score(result: EvaluationResult[Any]) -> event_pb2.Score:
    score = event_pb2.Score(name=_json.valid_text(result.name), explanation=_json.valid_text(result.reason or ""))
    score.evaluator.name = _json.valid_text(result.source.name)
    score.evaluator.version = _json.valid_text(result.evaluator_version or "")
    if isinstance(result.value, bool):
        score.passed = result.value
    elif isinstance(result.value, str):
        score.label = _json.valid_text(result.value)
    else:
        score.number = float(result.value)
    return score


def _failure(failure: EvaluatorFailure) -> event_pb2.Score:
    score = event_pb2.Score(name=_json.valid_text(failure.name))
    score.evaluator.name = _json.valid_text(failure.source.name)
    score.evaluator.version = _json.valid_text(failure.evaluator_version or "")
    message = failure.error_message.removeprefix(f"{failure.error_type}: ")
    score.error.message, score.error.type = _json.valid_text(message), _json.valid_text(failure.error_type or "")
    return score


def _plan(dataset: Dataset[Any, Any, Any], iterations: int) -> list[_Planned]:
    planned = []
    for index, case in enumerate(dataset.cases, 1):
        input_json = _text(case.inputs)
        row_id = case.name or f"case {index} {hashlib.sha256(input_json.encode()).hexdigest()[:8]}"
        for iteration in range(1, iterations + 1):
            copy = Case(
                name=f"{row_id} [{iteration}/{iterations}]" if iterations > 1 else row_id,
                inputs=case.inputs,
                metadata=case.metadata,
                expected_output=case.expected_output,
                evaluators=list(case.evaluators),
            )
            planned.append(_Planned(key=(row_id, iteration), original=case, case=copy, input_json=input_json))
    return planned


def _plan_proto(
    dataset: Dataset[Any, Any, Any], row_count: int, iterations: int, evaluators: Sequence[Evaluator[Any, Any, Any]]
) -> event_pb2.EvaluationPlan:
    described = [
        event_pb2.Evaluator(name=one.get_default_evaluation_name(), version=one.get_evaluator_version() or "")
        for one in evaluators
    ]
    return event_pb2.EvaluationPlan(
        dataset=dataset.name or "", row_count=row_count, iterations=iterations, evaluators=described
    )


async def _find(runs: AsyncRuns, evaluation_id: str) -> Run | None:
    try:
        run = await runs.get(evaluation_id)
    except RunNotFound:
        return None
    if run.has_ended:
        raise RunSealed(f"evaluation {evaluation_id} has ended ({run.state.value}): run it under another evaluation_id")
    return run


async def _read_rows(runs: AsyncRuns, evaluation_id: str) -> dict[Key, Row]:
    events = runs.events(evaluation_id, types=["row_finished"], page_size=1_000)
    rows = [Row.from_proto(event.data) async for event in events if event.type == "row_finished"]
    return {(row.id, row.iteration): row for row in rows}


def _check(rows: Mapping[Key, Row], planned: Sequence[_Planned], evaluation_id: str) -> None:
    inputs = {row.key: _json.decode(row.input_json) for row in planned}
    for key, row in rows.items():
        if key not in inputs or inputs[key] != row.input:
            told = "is not in the dataset" if key not in inputs else "has other inputs in the dataset"
            raise ValueError(
                f"row {row.id!r}, iteration {row.iteration}, of evaluation {evaluation_id} {told}: "
                "run this dataset under another evaluation_id"
            )


def _in_order(rows: Mapping[Key, Row], planned: Sequence[_Planned]) -> list[Row]:
    return [rows[row.key] for row in planned if row.key in rows]


def _text(value: object) -> str:
    return "" if value is None else _json.bounded_text(_json.encode(_json.bounded(value)), _LARGEST)
