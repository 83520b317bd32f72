"""The runs that an evaluation is written to, one after the other, until one ends well."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from lavant.client._async.connection import Connection
from lavant.client._async.producer import AsyncRunProducer
from lavant.client._async.runs import AsyncRuns
from lavant.client._errors import (
    EvaluationChanged,
    ProducerConflict,
    ProducerFenced,
    ProducerGap,
    RunNotFound,
    RunSealed,
)
from lavant.client._ids import new_id
from lavant.client._options import ProducerOptions
from lavant.client._requests import created_again
from lavant.client.integrations._evaluation_plan import Stored
from lavant.v1.event_pb2 import EvaluationPlan, Event, RunStarted, RunStateChanged
from lavant.v1.run_pb2 import RUN_KIND_EVALUATION, RUN_STATE_RUNNING, RUN_STATE_SUCCEEDED, Run
from lavant.v1.run_service_pb2 import CreateRunRequest, GetRunRequest

_log = logging.getLogger("lavant.client")


async def find_lives(connection: Connection, evaluation_id: str) -> list[Run]:
    """Return an evaluation's lives so far: all but the last one ended, and not well.

    Raises EvaluationChanged for a run that is none.
    """
    lives: list[Run] = []
    while not lives or _ended_badly(lives[-1]):
        request = GetRunRequest(run_id=_life_id(evaluation_id, len(lives) + 1))
        try:
            run = (await connection.call(lambda lane: lane.runs.GetRun, request)).run
        except RunNotFound:
            break
        if run.kind != RUN_KIND_EVALUATION or (lives and run.parent_run_id != evaluation_id):
            raise EvaluationChanged(
                f"run {run.run_id} is no part of evaluation {evaluation_id}: run it under another evaluation_id"
            )
        lives.append(run)
    return lives


async def read_lives(runs: AsyncRuns, ids: Iterable[str]) -> Stored:
    """Read what lives hold: each row once, as most are copied from one life into the next."""
    stored = Stored()
    for run_id in ids:
        async for event in runs.events(run_id, types=["run_started", "row_finished"], page_size=1_000):
            if event.type == "run_started" and event.data.evaluation:
                stored.plan = stored.plan or event.proto.run_started.evaluation
            elif event.type == "row_finished":
                stored.events.setdefault((event.data.row_id, event.data.iteration), event.proto)
    return stored


def next_life(
    connection: Connection, first: CreateRunRequest, lives: Sequence[Run], plan: EvaluationPlan
) -> AsyncRunProducer:
    """Return the producer of the life to write: the last one if it has not ended, else a new one.

    `first` is the request that creates the first life. What the producer publishes first takes the life over, or
    fails: of any who write it, the last one to come goes on.
    """
    request, head = first, 0
    opening = Event(run_started=RunStarted(evaluation=plan))
    if lives and not _ended_badly(lives[-1]):
        request, head = created_again(lives[-1]), lives[-1].last_sequence
    elif lives:
        request.parent_run_id = first.run_id
        request.run_id = _life_id(first.run_id, len(lives) + 1)
        _log.warning("evaluation %s goes on as %s: it had ended other than well", lives[-1].run_id, request.run_id)
    if head:
        opening = Event(run_state_changed=RunStateChanged(state=RUN_STATE_RUNNING, reason="taken over"))
    # Two who begin at once have the same epoch, and differ by this id: the second one is refused.
    opening.event_id = new_id()
    # Above the epochs of all that have published before, as each is at most the number of its own first event.
    options = ProducerOptions(producer_id="evaluation", producer_epoch=head + 1)
    return AsyncRunProducer(connection, request, opening, options, "raise")


@contextmanager
def overtaken(run_id: str) -> Iterator[None]:
    """Say what has become of an evaluation that this process may not write any more."""
    try:
        yield
    except (ProducerFenced, ProducerConflict, ProducerGap) as error:
        raise ProducerFenced(
            f"another process runs evaluation {run_id} now, with all rows that were stored: wait for its end instead"
        ) from error
    except RunSealed as error:
        raise RunSealed(
            f"evaluation {run_id} was ended while it ran: run it again under the same evaluation_id to go on"
        ) from error


def _ended_badly(run: Run) -> bool:
    return run.HasField("end_time") and run.state != RUN_STATE_SUCCEEDED


def _life_id(evaluation_id: str, number: int) -> str:
    return evaluation_id if number == 1 else f"{evaluation_id}.{number}"
