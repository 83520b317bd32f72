# Made from _async/evaluations.py by client/unasync.py: change that one.
"""Evaluations: running, reading and comparing them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lavant.client._arguments import several
from lavant.client._comparison import ScoreComparison, compare
from lavant.client._evaluations import EVENT_TYPES, Evaluation
from lavant.client._ids import new_name
from lavant.client._judged import JudgedRun, ProcessedSamples
from lavant.client._models import RunResult
from lavant.client._plan import Start
from lavant.client._rows import Row
from lavant.client._rules import Rule
from lavant.client._status import raise_unless_succeeded
from lavant.client._sync.connection import Connection
from lavant.client._sync.evaluating import execute
from lavant.client._sync.evaluation_stream import EvaluationStream
from lavant.client._sync.runs import Runs

if TYPE_CHECKING:
    from pydantic_ai import Agent
    from pydantic_evals import Case, Dataset
    from pydantic_evals.evaluators import Evaluator
    from pydantic_evals.lifecycle import CaseLifecycle


class Evaluations:
    """What can be done with evaluations; found at `client.evaluations`. Each is a run of kind "evaluation".

    Example:
        for event in client.evaluations.stream(evaluation_id):
            if event.type == "row_complete":
                print(event.row.score)
            elif event.type == "final":
                print("done:", event.result.accuracy)
                break
    """

    def __init__(self, connection: Connection, runs: Runs, opened_with: Mapping[str, Any]) -> None:
        self._connection = connection
        self._runs = runs
        self._opened_with = opened_with

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
        """Run a dataset of pydantic-evals in this process, `iterations` times each case, and publish each row.

        Needs `pip install 'lavant[evals]'`. A row is done once it is durable. Tasks and evaluators that fail make
        rows with errors; all other scores of such a row stay. Cases are known by their names, those without one by
        their place and inputs.

        With the `evaluation_id` of an earlier one, what that has scored is not run again: give it one whenever
        that matters. If it still ran, or was killed, it goes on in its log, and a process that may be at work on it
        ends with ProducerFenced. If it succeeded, it is returned as it is. If it ended otherwise, as abandoned
        after `producer_timeout` seconds without its process, it goes on as `evaluation_id.2`, then `.3` ..., which
        begins with a copy of the rows: the result's `id` tells which.

        With the id of an earlier one as its `baseline`, what is returned has the `comparison` with it. `stubs` answer
        calls of the tools of their names in the `agent`s of pydantic-ai that the task runs, with the tools'
        arguments, and a StubCall if they ask for one. With stubs, no real tool of these agents is run: a row that
        calls one fails with ToolNotStubbed, unless `passthrough` names the tool. `retry_task`, `retry_evaluators` and
        `lifecycle` are those of pydantic-evals' `Dataset.evaluate`; the dataset's report evaluators are not run.

        An agent that the task runs and that records itself has a run of its own, whose parent is the evaluation: the
        row's `run_id` names it, and its tokens and cost are among the row's `metrics`.

        Raises ValueError or TypeError before anything is run for arguments that make no sense, as a stub for a tool
        that does not exist; EvaluationChanged if the dataset, its evaluators or iterations are not those that the
        evaluation began with; RunCancelled if somebody cancelled it; and what keeps rows from being published.

        Example:
            dataset = Dataset(name="cities", cases=[Case(name="oslo", inputs="Oslo", expected_output="OSLO")])
            evaluation = client.evaluations.run(dataset, str.upper, evaluators=[EqualsExpected()])
            assert evaluation.mean_scores == {"EqualsExpected": 1.0}
        """
        from lavant.client.integrations._pydantic_evals import Work  # Needs an extra.
        from lavant.client.integrations._tool_stubs import Stubs

        work = Work(
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
        return execute(work, self._connection, self._runs, self._opened_with)

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
        on_judged: Callable[[JudgedRun], object] | None = None,
        lease: float = 30.0,
        heartbeat_interval: float = 15.0,
        reconnect_timeout: float | None = 60.0,
        take_over: bool = False,
    ) -> ProcessedSamples:
        """Judge the finished runs that a rule draws, in this process, for ever or `until_caught_up`.

        Needs `pip install 'lavant[evals]'`. Any number of workers share a rule: a sample is one worker's at a time,
        and its scores are recorded exactly once. `max_concurrency` samples are judged at once. An evaluator that
        raises gives a score with an error. If it cannot be reached (connection errors, `timeout` seconds, statuses
        such as 429 and 503, missing API keys, EvaluatorUnavailable), the sample is returned, and tried again after a
        delay; after the rule's `max_attempts` it is recorded as failed. While all evaluators are unavailable, this
        worker pauses, for 1 s to 60 s, and attempts do not count. With `until_caught_up`, it ends after 10 s of
        pauses, or when the samples left are delayed by more than 30 s, and returns how many are `waiting`. A run that
        cannot be read is tried again later. `labels` are added to the scores, beside the rule's. `on_judged` is
        called with each run, once its scores are durable.

        Reconnects by itself, for `reconnect_timeout` seconds after a cut. When the call ends or is cancelled, the
        samples that are not done are given back. If the process dies, they come back after `lease` seconds.

        `worker` is this worker's name, by default one of its own. Raises StreamDisplaced if a worker of this name
        takes its place over, ConsumerBusy if one is at work and `take_over` is not set, and ValueError for no
        evaluators, or without those that the rule names.

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
            assert done.judged > 0
            [score] = [score for score in client.runs.scores(run_id)]
            assert (score.name, score.value, score.explanation) == ("Frugal", True, "1 calls of tools")
        """
        from lavant.client.integrations._judging_worker import Worker  # Needs an extra.

        work = Worker(
            rule_id=rule if isinstance(rule, str) else rule.id,
            evaluators=evaluators,
            max_concurrency=max_concurrency,
            labels=labels or {},
            timeout=timeout,
            worker_id=worker or new_name(),
            until_caught_up=until_caught_up,
            on_judged=on_judged,
            lease=lease,
            heartbeat_interval=heartbeat_interval,
            reconnect_timeout=reconnect_timeout,
            take_over=take_over,
        )
        return execute(work, self._connection, self._runs, self._opened_with)

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
        """Give an evaluation's `status`, `progress`, `row_complete`, and last its `final` or `error`.

        Arguments are those of `client.runs.stream`. A stream that begins with a resume token counts in its end only
        the rows that it has read, where the run tells no sum.
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
        """Read an evaluation as far as it is: one that has not ended has no sums but those of its rows."""
        rows = self._rows(evaluation_id)
        run = self._runs.get(evaluation_id)
        return Evaluation.from_result(run.result or RunResult(run_id=run.id, state=run.state), rows)

    def wait(self, evaluation_id: str, timeout: float | None = None) -> Evaluation:
        """Wait for an evaluation's end; return it with its rows.

        Raises RunFailed, RunCancelled, RunTimedOut or RunAbandoned as it ended, WaitTimeout after `timeout` seconds.
        """
        run = self._runs.wait(evaluation_id, timeout)
        if run.result is not None:
            raise_unless_succeeded(run.result)
        return self.get(evaluation_id)

    def compare(self, evaluation_id: str, baseline_id: str) -> tuple[ScoreComparison, ...]:
        """Compare an evaluation with an earlier one, score by score."""
        return compare(self._rows(evaluation_id), self._rows(baseline_id))

    def _rows(self, evaluation_id: str) -> list[Row]:
        events = self._runs.events(evaluation_id, types=["row_finished"], page_size=1_000)
        return [Row.from_proto(event.proto.row_finished) for event in events if event.type == "row_finished"]
