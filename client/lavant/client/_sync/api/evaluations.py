# Generated from _async/api/evaluations.py by client/unasync.py: change that file instead.
"""Calls about evaluations: run, read and compare them, and evaluate finished runs."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from lavant.client._reading.plan import Start
from lavant.client._sync.api.runs import Runs
from lavant.client._sync.concurrency import Closing, run_evaluators
from lavant.client._sync.run_stream import RunStream
from lavant.client._sync.transport import Connection
from lavant.client._wire.arguments import several
from lavant.client._wire.ids import new_name
from lavant.client._wire.status import raise_unless_succeeded
from lavant.client.evaluations import (
    EVENT_TYPES,
    EvaluatedRun,
    Evaluation,
    EvaluationEvent,
    EvaluationProjection,
    ProcessedSamples,
    Row,
    ScoreComparison,
    compare,
)
from lavant.client.events import Event
from lavant.client.models import RunResult
from lavant.client.rules import Rule

if TYPE_CHECKING:
    from pydantic_ai import Agent
    from pydantic_evals import Case, Dataset
    from pydantic_evals.evaluators import Evaluator
    from pydantic_evals.lifecycle import CaseLifecycle


class EvaluationStream(Closing, Iterator[EvaluationEvent]):
    """Stream of an evaluation's events, in order, each exactly once. Reconnects by itself.

    One loop at a time, as for a run's stream; a loop after the end reads the same events again. Each time the stream
    opens, also on a reconnect, a `status` comes first unless the evaluation has ended. The last event is `final`, or
    `error` for an evaluation that failed, timed out or was abandoned. Leaving its `with` block, or dropping the
    last reference, closes it; the evaluation continues.

    Example:
        with client.evaluations.stream(evaluation_id) as stream:
            for event in stream:
                if event.type == "row_complete":
                    break
        later = client.evaluations.stream(evaluation_id, resume_token=stream.resume_token)
        assert [event.row.id for event in later if event.type == "row_complete"] == ["case 2"]
    """

    def __init__(self, evaluation_id: str, stream: RunStream) -> None:
        stream.reports_state = True
        self._stream = stream
        self._id = evaluation_id
        self._projection = EvaluationProjection(evaluation_id)
        self._ready: deque[EvaluationEvent] = deque()
        self._token_before = ""

    @property
    def run_stream(self) -> RunStream:
        """The stream of the evaluation's run that this one reads."""
        return self._stream

    @property
    def is_between_events(self) -> bool:
        """Whether all events derived from the last event of the run were returned."""
        return not self._ready

    @property
    def resume_token(self) -> str:
        """Position after the last event returned; empty before the first.

        Events that stem from one event of the run, such as the last `status` and `final`, share a position: a stream
        that resumes between them repeats the first.
        """
        return self._token_before if self._ready else self._stream.resume_token

    def close(self) -> None:
        """Close the stream: cancels the call at once. May be called again."""
        self._stream.close()

    def __iter__(self) -> Iterator[EvaluationEvent]:
        return self._replay() if self._stream.is_at_end and not self._ready else self._loop()

    def __next__(self) -> EvaluationEvent:
        return self._next(self._stream)

    def _loop(self) -> Iterator[EvaluationEvent]:
        events = iter(self._stream)
        with suppress(StopIteration):
            while True:
                yield self._next(events)

    def _next(self, events: Iterator[Event]) -> EvaluationEvent:
        while not self._ready:
            self._token_before = self._stream.resume_token
            self._ready.extend(self._projection.add(next(events)))
        return self._ready.popleft()

    def _replay(self) -> Iterator[EvaluationEvent]:
        projection = EvaluationProjection(self._id)
        for event in self._stream:
            for ready in projection.add(event):
                yield ready


class Evaluations:
    """Calls about evaluations, at `client.evaluations`. An evaluation is a run of kind "evaluation".

    Example:
        for event in client.evaluations.stream(evaluation_id):
            if event.type == "row_complete":
                print(event.row.score)
            elif event.type == "final":
                print("done:", event.result.accuracy)
                break
    """

    def __init__(self, connection: Connection, runs: Runs, client_arguments: Mapping[str, Any]) -> None:
        self._connection = connection
        self._runs = runs
        self._client_arguments = client_arguments

    def run(
        self,
        dataset: "Dataset[Any, Any, Any]",
        task: Callable[[Any], Any],
        *,
        name: str | None = None,
        iterations: int = 1,
        evaluators: "Sequence[Evaluator[Any, Any, Any]]" = (),
        labels: Mapping[str, str] | None = None,
        max_concurrency: int | None = None,
        evaluation_id: str | None = None,
        baseline: str | None = None,
        stubs: Mapping[str, Callable[..., Any]] | None = None,
        passthrough: Iterable[str] = (),
        agent: "Agent[Any, Any] | Sequence[Agent[Any, Any]]" = (),
        producer_timeout: float | None = 300.0,
        retry_task: Mapping[str, Any] | None = None,
        retry_evaluators: Mapping[str, Any] | None = None,
        lifecycle: "Callable[[Case[Any, Any, Any]], CaseLifecycle[Any, Any, Any]] | None" = None,
    ) -> Evaluation:
        """Evaluate a task on a dataset of pydantic-evals in this process, and publish each row.

        Each case runs `iterations` times. A row counts as done when it is durable. A task or evaluator that fails makes
        a row with an error; the other scores of the row are kept. Cases are identified by their names, or by position
        and inputs. Needs `pip install 'lavant[evals]'`.

        With the `evaluation_id` of an earlier evaluation, rows that are done are not run again. One that still runs or
        was killed continues in its log, and another process that works on it ends with ProducerFenced. One that
        succeeded is returned unchanged. One that ended otherwise, such as abandoned after `producer_timeout` seconds
        without its process, continues as `evaluation_id.2`, then `.3` and so on, which begins with a copy of the rows:
        see the result's `id`.

        With the id of an earlier evaluation as `baseline`, the result has a `comparison`. `stubs` answer calls of the
        named tools by the pydantic-ai `agent`s of the task: they get the tool's arguments, and a StubCall if they ask
        for one. With stubs, a row that calls another tool fails with ToolNotStubbed unless `passthrough` names the
        tool. `retry_task`, `retry_evaluators` and `lifecycle` are those of pydantic-evals' `Dataset.evaluate`; report
        evaluators are not run.

        If the task runs an agent that is recorded, its run is a child of the evaluation: the row's `run_id` names it,
        and the row's `metrics` include its tokens and cost.

        Raises ValueError or TypeError before anything runs for arguments that are not valid, such as a stub for an
        unknown tool; EvaluationChanged if the dataset, evaluators or iterations are not those of the `evaluation_id`;
        RunCancelled if the evaluation is cancelled; and the error that prevents rows from being published.

        Example:
            dataset = Dataset(name="cities", cases=[Case(name="oslo", inputs="Oslo", expected_output="OSLO")])
            evaluation = client.evaluations.run(dataset, str.upper, evaluators=[EqualsExpected()])
            assert evaluation.mean_scores == {"EqualsExpected": 1.0}
        """
        from lavant.client.evals.run.dataset import DatasetEvaluation  # Needs an extra.
        from lavant.client.evals.run.stubs import Stubs

        work = DatasetEvaluation(
            dataset=dataset,
            task=task,
            name=name or getattr(dataset, "name", None) or "evaluation",
            iterations=iterations,
            evaluators=evaluators,
            labels=labels or {},
            max_concurrency=max_concurrency,
            evaluation_id=evaluation_id,
            baseline=baseline,
            stubs=Stubs(stubs or {}, several("passthrough", passthrough)),
            agents=[*agent] if isinstance(agent, Sequence) else [agent],
            producer_timeout=producer_timeout,
            retry_task=retry_task,
            retry_evaluators=retry_evaluators,
            lifecycle=lifecycle,
        )
        return run_evaluators(work, self._connection, self._runs, self._client_arguments)

    def process_stream(
        self,
        rule: Rule | str,
        *,
        evaluators: "Sequence[Evaluator[Any, Any, Any]]",
        max_concurrency: int = 5,
        labels: Mapping[str, str] | None = None,
        timeout: float | None = 60.0,
        worker: str | None = None,
        until_caught_up: bool = False,
        on_evaluated: Callable[[EvaluatedRun], object] | None = None,
        lease: float = 30.0,
        heartbeat_interval: float = 15.0,
        reconnect_timeout: float | None = 60.0,
        take_over: bool = False,
    ) -> ProcessedSamples:
        """Evaluate the finished runs that a rule samples, in this process: without end, or `until_caught_up`.

        Any number of workers share a rule: a sample is leased to one worker at a time, and its scores are recorded
        exactly once. At most `max_concurrency` samples are evaluated at a time. The score of an evaluator that raises
        has an error. If an evaluator cannot be reached (connection errors, `timeout` seconds, statuses such as 429 and
        503, missing API keys, EvaluatorUnavailable), the sample is returned and tried again after a delay; after the
        rule's `max_attempts` it is recorded as failed. While all evaluators are unavailable the worker pauses for 1 to
        60 seconds, and attempts do not count. Runs that cannot be read are tried again later. Needs `pip install
        'lavant[evals]'`.

        `until_caught_up` ends after 10 seconds of pauses, or when all samples left are delayed by more than 30 seconds;
        the result says how many are `waiting`. `labels` are added to the scores. `on_evaluated` is called with each run
        after its scores are durable. A cut connection is restored for up to `reconnect_timeout` seconds. When the call
        ends or is cancelled, unfinished samples are returned; if the process dies, their lease expires after `lease`
        seconds.

        `worker` is the worker's name, default a unique one. Raises ConsumerBusy if a worker of this name is active and
        `take_over` is not set, StreamDisplaced if another one takes over, and ValueError if `evaluators` is empty or
        lacks one that the rule names.

        Example:
            from dataclasses import dataclass

            from pydantic_evals.evaluators import EvaluationReason, Evaluator, EvaluatorContext


            @dataclass
            class Frugal(Evaluator):
                most: int = 3

                def evaluate(self, ctx: EvaluatorContext) -> EvaluationReason:
                    calls = ctx.metrics["tool_calls"]
                    return EvaluationReason(value=calls <= self.most, reason=f"{calls} calls of tools")


            client.rules.create("quality", evaluators=["Frugal"])
            client.rules.backfill("quality")
            labels = {"feeling": "neutral"}
            done = client.evaluations.process_stream(
                "quality", evaluators=[Frugal()], max_concurrency=5, labels=labels, until_caught_up=True
            )
            assert done.evaluated > 0
            [score] = [score for score in client.runs.scores(run_id)]
            assert (score.name, score.value, score.explanation) == ("Frugal", True, "1 calls of tools")
        """
        from lavant.client.evals.worker.worker import SampleWorker  # Needs an extra.

        work = SampleWorker(
            rule_id=rule if isinstance(rule, str) else rule.id,
            evaluators=evaluators,
            max_concurrency=max_concurrency,
            labels=labels or {},
            timeout=timeout,
            worker_id=worker or new_name(),
            until_caught_up=until_caught_up,
            on_evaluated=on_evaluated,
            lease=lease,
            heartbeat_interval=heartbeat_interval,
            reconnect_timeout=reconnect_timeout,
            take_over=take_over,
        )
        return run_evaluators(work, self._connection, self._runs, self._client_arguments)

    def stream(
        self,
        evaluation_id: str,
        *,
        consumer: str | None = None,
        resume_token: str | None = None,
        start: Start = "beginning",
        timeout: float | None = None,
        idle_timeout: float | None = None,
        reconnect_timeout: float | None = 60.0,
        heartbeat_interval: float = 15.0,
        take_over: bool = False,
        wait_for_run: bool = False,
    ) -> EvaluationStream:
        """Return a stream of an evaluation's events: `status`, `progress`, `row_complete`, and last `final` or `error`.

        The arguments are those of `client.runs.stream`. If the run has no summary, the last event of a stream that
        resumed counts only the rows that this stream has read.
        """
        stream = self._runs.stream(
            evaluation_id,
            consumer=consumer,
            resume_token=resume_token,
            start=start,
            types=EVENT_TYPES,
            timeout=timeout,
            idle_timeout=idle_timeout,
            reconnect_timeout=reconnect_timeout,
            heartbeat_interval=heartbeat_interval,
            take_over=take_over,
            wait_for_run=wait_for_run,
        )
        return EvaluationStream(evaluation_id, stream)

    def get(self, evaluation_id: str) -> Evaluation:
        """Return an evaluation with the rows that are done. Before its end, totals are those of the rows."""
        rows = self._rows(evaluation_id)
        run = self._runs.get(evaluation_id)
        return Evaluation.from_result(run.result or RunResult(run_id=run.id, state=run.state), rows)

    def wait(self, evaluation_id: str, timeout: float | None = None) -> Evaluation:
        """Wait until an evaluation has succeeded, and return it with its rows.

        Raises RunFailed, RunCancelled, RunTimedOut or RunAbandoned if it ended otherwise, and WaitTimeout after
        `timeout` seconds.
        """
        run = self._runs.wait(evaluation_id, timeout)
        if run.result is not None:
            raise_unless_succeeded(run.result)
        return self.get(evaluation_id)

    def compare(self, evaluation_id: str, baseline_id: str) -> tuple[ScoreComparison, ...]:
        """Compare an evaluation with an earlier one. Return a comparison per score name."""
        return compare(self._rows(evaluation_id), self._rows(baseline_id))

    def _rows(self, evaluation_id: str) -> list[Row]:
        events = self._runs.events(evaluation_id, types=["row_finished"], page_size=1_000)
        return [Row.from_proto(event.proto.row_finished) for event in events if event.type == "row_finished"]
