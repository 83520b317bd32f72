"""Batches that are rejected, and what a producer does about each reason."""

import time
from collections.abc import Callable

import grpc
from google.rpc.status_pb2 import Status

from conformance.cases.publishing import notes
from conformance.lab import Lab
from conformance.scripts import Answer, answers, batches, of_field, receipt, rejected, retry_after, with_detail
from conformance.suite import case, expect, require
from lavant.v1 import event_service_pb2 as pb
from lavant.v1.error_pb2 import ProducerGap
from lavant.v1.run_service_pb2 import DeleteRunRequest
from support.calls import create, ended_run
from support.scripted import PublishAct, Script, status

Code = grpc.StatusCode


def rejects(*first: Status) -> list[PublishAct]:
    """Return acts: of the first call, which rejects its first batch with events, and of the others, which store all."""
    return answers(rejecting(*first), receipt, receipt)


def rejecting(refusal: Status, following: Status | None = None) -> Callable[[pb.ProducerBatch], Answer]:
    """Return the decision to reject the batch after the run's first one, and those that follow it."""
    has_rejected = False

    def decide(batch: pb.ProducerBatch) -> Answer:
        nonlocal has_rejected
        if not batch.events or batch.first_producer_sequence == 1:
            return receipt(batch)
        answer = rejected(batch, following if has_rejected and following else refusal)
        has_rejected = True
        return answer

    return decide


def gap(expected: int, *, follows: bool = False) -> Status:
    """Return the rejection of a batch whose number is not the expected one."""
    refusal = status(Code.FAILED_PRECONDITION, "PRODUCER_GAP")
    return with_detail(refusal, ProducerGap(expected_producer_sequence=expected, follows_rejection=follows))


async def rejected_run(lab: Lab, *acts: PublishAct) -> tuple[Script, dict[str, object] | str]:
    """Publish a run, of which something is rejected; return the outcome, or the reason of the error."""
    script = Script(publishes=[*acts])
    publication = await (await lab.client(await lab.scripted(script))).publish()
    await publication.flushed()
    publication.send(*notes(2))
    if reason := await publication.refused():
        return script, reason
    return script, await publication.finished()


async def check_stored(lab: Lab, *acts: PublishAct) -> Script:
    """Fail unless the client publishes all in spite of a rejection."""
    script, outcome = await rejected_run(lab, *acts)
    require(isinstance(outcome, dict), f"the run failed with {outcome}")
    again = batches(script, 1)
    expect(again[0].first_producer_sequence, 2, "the number of the batch that is sent again")
    return script


async def check_failed(lab: Lab, refusal: Status, reason: str) -> None:
    """Fail unless the client stops after a rejection, and reports it."""
    script, outcome = await rejected_run(lab, *rejects(refusal))
    expect(outcome, reason, "the reason of the error")
    expect(sum(len(batches(script, call)) for call in range(1, len(script.batches))), 0, "batches after the rejection")


@case
async def rejected_unavailable(lab: Lab) -> None:
    """Send again what was rejected with UNAVAILABLE, after RetryInfo, and ignore the gaps that follow from it."""
    refusal = retry_after(status(Code.UNAVAILABLE, "UNAVAILABLE"), 0.5)
    began = time.monotonic()
    await check_stored(lab, *answers(rejecting(refusal, gap(2, follows=True)), receipt, receipt))
    require(time.monotonic() - began > 0.5, "it was sent again before the time of RetryInfo")


@case
async def gap_that_is_kept(lab: Lab) -> None:
    """Send again from the expected number after PRODUCER_GAP, if that batch is kept."""
    await check_stored(lab, *rejects(gap(2)))


@case
async def gap_that_is_lost(lab: Lab) -> None:
    """Fail with PRODUCER_GAP if the expected batch has its receipt: the server has lost events."""
    await check_failed(lab, gap(1), "PRODUCER_GAP")


@case
async def rejected_fenced(lab: Lab) -> None:
    """Stop with PRODUCER_FENCED."""
    await check_failed(lab, status(Code.ABORTED, "PRODUCER_FENCED"), "PRODUCER_FENCED")


@case
async def rejected_conflict(lab: Lab) -> None:
    """Fail with PRODUCER_CONFLICT."""
    await check_failed(lab, status(Code.ALREADY_EXISTS, "PRODUCER_CONFLICT"), "PRODUCER_CONFLICT")


@case
async def rejected_sealed(lab: Lab) -> None:
    """Fail with RUN_SEALED for a run that has ended."""
    await check_failed(lab, status(Code.FAILED_PRECONDITION, "RUN_SEALED"), "RUN_SEALED")


@case
async def run_that_exists(lab: Lab) -> None:
    """Fail with RUN_EXISTS if the run exists with other settings; with the same ones, publish it."""
    server = await lab.server()
    program = await lab.client(server.target)
    await create(server.stubs, "taken", name="other")
    await create(server.stubs, "created")
    taken = await program.publish("taken")
    taken.flush()
    await taken.operation.fails("RUN_EXISTS")
    await (await program.publish("created")).finished()


@case
async def run_that_is_missing(lab: Lab) -> None:
    """Fail with RUN_NOT_FOUND if the run was deleted, or never created."""
    server = await lab.server()
    program = await lab.client(server.target)
    await ended_run(server.stubs)
    await server.stubs.runs.DeleteRun(DeleteRunRequest(run_id="run"))
    operation = program.begin("publish", run="run")
    operation.command("send", events=[])
    operation.command("finish", state="SUCCEEDED")
    await operation.fails("RUN_NOT_FOUND")


@case
async def rejected_owner(lab: Lab) -> None:
    """Fail with PERMISSION_DENIED, as when another principal publishes as this producer."""
    await check_failed(lab, status(Code.PERMISSION_DENIED, "PERMISSION_DENIED"), "PERMISSION_DENIED")


@case
async def rejected_field(lab: Lab) -> None:
    """Fail with INVALID_FIELD, or replace the event that BadRequest names and send the rest again."""
    script, outcome = await rejected_run(lab, *rejects(of_field("batch.events[0].custom.name")))
    if isinstance(outcome, dict):
        require(batches(script, 1)[0].events[0] != batches(script, 0)[1].events[0], "the event was not replaced")
    else:
        expect(outcome, "INVALID_FIELD", "the reason of the error")


@case
async def quota_that_passes(lab: Lab) -> None:
    """Send again after QUOTA_EXCEEDED with RetryInfo, as when the store is full for a while."""
    await check_stored(lab, *rejects(retry_after(status(Code.RESOURCE_EXHAUSTED, "QUOTA_EXCEEDED"), 0.3)))


@case
async def quota_that_stays(lab: Lab) -> None:
    """Fail after QUOTA_EXCEEDED without RetryInfo."""
    await check_failed(lab, status(Code.RESOURCE_EXHAUSTED, "QUOTA_EXCEEDED"), "QUOTA_EXCEEDED")


@case
async def rejected_otherwise(lab: Lab) -> None:
    """Fail after any other rejection, such as DATA_LOSS."""
    await check_failed(lab, status(Code.DATA_LOSS, "DATA_LOSS"), "DATA_LOSS")
