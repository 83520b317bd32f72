"""Attempts of an evaluation: the runs that it is written to, one after another, until one succeeds."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from lavant.client._async.api.runs import AsyncRuns
from lavant.client._async.producer import AsyncRunProducer
from lavant.client._async.transport import Connection
from lavant.client._publishing.requests import created_again
from lavant.client._wire.ids import new_id
from lavant.client.errors import (
    EvaluationChanged,
    ProducerConflict,
    ProducerFenced,
    ProducerGap,
    RunNotFound,
    RunSealed,
)
from lavant.client.evals.run.plan import Stored
from lavant.client.options import ProducerOptions
from lavant.v1.event_pb2 import EvaluationPlan, Event, RunStarted, RunStateChanged
from lavant.v1.run_pb2 import RUN_KIND_EVALUATION, RUN_STATE_RUNNING, RUN_STATE_SUCCEEDED, Run
from lavant.v1.run_service_pb2 import CreateRunRequest, GetRunRequest

_log = logging.getLogger("lavant.client")


async def find_attempts(connection: Connection, evaluation_id: str) -> list[Run]:
    """Return an evaluation's attempts so far; each but the last one ended without success.

    Raises EvaluationChanged for a run of something else.
    """
    attempts: list[Run] = []
    while not attempts or _ended_without_success(attempts[-1]):
        request = GetRunRequest(run_id=_attempt_id(evaluation_id, len(attempts) + 1))
        try:
            run = (await connection.call(lambda stubs: stubs.runs.GetRun, request)).run
        except RunNotFound:
            break
        if run.kind != RUN_KIND_EVALUATION or (attempts and run.parent_run_id != evaluation_id):
            raise EvaluationChanged(
                f"run {run.run_id} is not part of evaluation {evaluation_id}: choose another evaluation_id"
            )
        attempts.append(run)
    return attempts


async def read_attempts(runs: AsyncRuns, ids: Iterable[str]) -> Stored:
    """Read the plan and rows of attempts; each row once, as rows are copied from one attempt to the next."""
    stored = Stored()
    for run_id in ids:
        async for event in runs.events(run_id, types=["run_started", "row_finished"], page_size=1_000):
            if event.type == "run_started" and event.data.evaluation:
                stored.plan = stored.plan or event.proto.run_started.evaluation
            elif event.type == "row_finished":
                stored.events.setdefault((event.data.row_id, event.data.iteration), event.proto)
    return stored


def next_attempt(
    connection: Connection, first: CreateRunRequest, attempts: Sequence[Run], plan: EvaluationPlan
) -> AsyncRunProducer:
    """Return the producer of the attempt to write: the last one if it has not ended, else a new one.

    `first` is the request that creates the first attempt. The producer's first event takes the attempt over or fails:
    of all processes that write an attempt, the latest one continues.
    """
    request, head = first, 0
    opening = Event(run_started=RunStarted(evaluation=plan))
    if attempts and not _ended_without_success(attempts[-1]):
        request, head = created_again(attempts[-1]), attempts[-1].last_sequence
    elif attempts:
        request.settings.parent_run_id = first.run_id
        request.run_id = _attempt_id(first.run_id, len(attempts) + 1)
        _log.warning("evaluation %s ended without success; it continues as %s", attempts[-1].run_id, request.run_id)
    if head:
        opening = Event(run_state_changed=RunStateChanged(state=RUN_STATE_RUNNING, reason="taken over"))
    # Two processes that start at once have the same epoch, but not the same event id: the second one is refused.
    opening.event_id = new_id()
    # Above all earlier epochs, as each of them is at most the sequence of its own first event.
    options = ProducerOptions(producer_id="evaluation", producer_epoch=head + 1)
    return AsyncRunProducer(connection, request, opening, options, "raise")


@contextmanager
def explained(run_id: str) -> Iterator[None]:
    """Explain why this process may no longer write an evaluation."""
    try:
        yield
    except (ProducerFenced, ProducerConflict, ProducerGap) as error:
        raise ProducerFenced(
            f"another process took over evaluation {run_id}, with all stored rows: wait for its end instead"
        ) from error
    except RunSealed as error:
        raise RunSealed(
            f"evaluation {run_id} was ended while it ran: run it again with the same evaluation_id to continue"
        ) from error


def _ended_without_success(run: Run) -> bool:
    return run.HasField("end_time") and run.state != RUN_STATE_SUCCEEDED


def _attempt_id(evaluation_id: str, number: int) -> str:
    return evaluation_id if number == 1 else f"{evaluation_id}.{number}"
