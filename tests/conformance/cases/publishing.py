"""Publishing a run: numbers, batches that are sent again, receipts, and the end."""

import asyncio

from conformance.lab import Lab
from conformance.scripts import UNAVAILABLE, Answer, answers, batches, receipt, sent, swallows
from conformance.suite import case, expect, require
from lavant.contract.limits import MAX_BATCH_BYTES, MAX_BATCH_EVENTS
from lavant.v1 import event_service_pb2 as pb
from lavant.v1.event_pb2 import Event
from lavant.v1.run_pb2 import RunState
from lavant.v1.run_service_pb2 import CancelRunRequest
from support.calls import get, listed
from support.events import artifact_updated, custom
from support.scripted import Script
from support.server import Stubs

LARGE = 950_000  # bytes; a batch has up to 1 MiB, of which clients may keep some for themselves


def notes(number: int) -> list[Event]:
    """Return events that may come anywhere in a run."""
    return [custom(value_json=str(value)) for value in range(number)]


async def check_log(stubs: Stubs, wanted: list[Event], run: str = "run") -> None:
    """Fail unless the log of a run that has ended has these events, once and in order, between its two ends."""
    log = await listed(stubs, run)
    expect([event.sequence for event in log], [*range(1, len(log) + 1)], "the sequences of the log")
    kinds = [log[0].WhichOneof("payload"), log[-1].WhichOneof("payload")]
    expect(kinds, ["run_started", "run_finished"], "the first and the last event of the log")
    expect([event.event_id for event in log[1:-1]], [event.event_id for event in wanted], "the IDs of the events")
    same = all(one.custom == other.custom for one, other in zip(log[1:-1], wanted, strict=True))
    require(same, "the payloads of the events were changed")


@case
async def published_run(lab: Lab) -> None:
    """Create a run and publish it: the log has every event once, in order and unchanged."""
    server = await lab.server()
    publication = await (await lab.client(server.target)).publish()
    wanted = notes(500)
    for start in range(0, 500, 100):
        publication.send(*wanted[start : start + 100])
    outcome = await publication.finished()
    await check_log(server.stubs, wanted)
    expect(outcome["last_sequence"], "502", "the sequence of the last event")
    expect((await get(server.stubs)).name, "weather", "the name of the run")


@case
async def flush_means_durable(lab: Lab) -> None:
    """Report events as durable only when a receipt covers them."""
    server = await lab.server()
    publication = await (await lab.client(server.target)).publish()
    publication.send(*notes(10))
    expect(await publication.flushed(), 11, "the last producer sequence")
    expect(len(await listed(server.stubs)), 11, "recorded events")
    await publication.finished()
    cut = asyncio.Event()
    script = Script(publishes=[swallows(cut), *answers(receipt)])
    publication = await (await lab.client(await lab.scripted(script))).publish()
    publication.send(*notes(1))
    tag = publication.flush()
    await sent(script, 1)
    await lab.pause(0.2)
    require(not publication.operation.all("flushed"), "events without a receipt are reported as durable")
    cut.set()
    await publication.flushed(tag)
    await publication.finished()


@case
async def numbered_without_gaps(lab: Lab) -> None:
    """Number the events of a run 1, 2, 3 … over its batches, under one producer and epoch."""
    script = Script(publishes=answers(receipt))
    publication = await (await lab.client(await lab.scripted(script))).publish(producer="p", epoch=7)
    for _ in range(5):
        publication.send(*notes(3))
        await publication.flushed()
    await publication.finished()
    found = [batch for call in range(len(script.batches)) for batch in batches(script, call)]
    expect({(batch.run_id, batch.producer_id, batch.producer_epoch) for batch in found}, {("run", "p", 7)}, "producers")
    number = 1
    for batch in found:
        expect(batch.first_producer_sequence, number, "the number of the first event of a batch")
        number += len(batch.events)
    expect(number - 1, 17, "the number of the last event")


@case
async def resent_byte_for_byte(lab: Lab) -> None:
    """After a cut, send every batch without a receipt again, unchanged and in order, whatever was queued since."""
    cut = asyncio.Event()
    script = Script(publishes=[swallows(cut), *answers(receipt)])
    publication = await (await lab.client(await lab.scripted(script))).publish()
    publication.send(*notes(2))
    publication.flush()
    await sent(script, 1)
    publication.send(*notes(4))
    await publication.operation.wait(lambda: len(publication.operation.all("queued")) == 2, "second 'queued'")
    cut.set()
    await publication.finished()
    before, after = batches(script, 0), batches(script, 1)
    kept = [batch.SerializeToString(deterministic=True) for batch in before]
    again = [batch.SerializeToString(deterministic=True) for batch in after[: len(before)]]
    require(again == kept, f"the second call has not the batches of the first: {shape(before)}, {shape(after)}")


def shape(found: list[pb.ProducerBatch]) -> str:
    """Return the numbers of batches, for a message."""
    return str([(batch.first_producer_sequence, len(batch.events)) for batch in found])


@case
async def receipts_end_resending(lab: Lab) -> None:
    """Send nothing again that a receipt covers."""

    def answer(batch: pb.ProducerBatch) -> Answer:
        return UNAVAILABLE if batch.first_producer_sequence > 2 and batch.events else receipt(batch)

    script = Script(publishes=answers(answer, receipt))
    publication = await (await lab.client(await lab.scripted(script))).publish()
    publication.send(*notes(1))
    covered = await publication.flushed()
    publication.send(*notes(3))
    await publication.finished()
    numbers = [batch.first_producer_sequence for batch in batches(script, 1)]
    require(min(numbers) > covered, f"batches {numbers} were sent again after a receipt for {covered}")


@case
async def create_until_receipt(lab: Lab) -> None:
    """Send the settings of the run with every batch until its first receipt, also after a cut."""
    cut = asyncio.Event()
    script = Script(publishes=[swallows(cut), *answers(receipt)])
    publication = await (await lab.client(await lab.scripted(script))).publish()
    publication.send(*notes(1))
    publication.flush()
    await sent(script, 1)
    cut.set()
    await publication.finished()
    first = [*script.batches[0], script.batches[1][0]]
    expect([batch.create.name for batch in first], ["weather"] * len(first), "the settings of the first batches")


@case
async def duplicate_receipts(lab: Lab) -> None:
    """Accept receipts of batches that had been stored before as any others."""
    cut = asyncio.Event()
    script = Script(publishes=[swallows(cut), *answers(lambda batch: receipt(batch, duplicate=True))])
    publication = await (await lab.client(await lab.scripted(script))).publish()
    publication.send(*notes(3))
    publication.flush()
    await sent(script, 1)
    cut.set()
    expect((await publication.finished())["last_producer_sequence"], "5", "the last producer sequence")


@case
async def limits_of_batches(lab: Lab) -> None:
    """Send at most 1,000 events and 1 MiB per batch, and 256 batches and 4 MiB per request."""
    script = Script(publishes=answers(receipt, receipt))
    publication = await (await lab.client(await lab.scripted(script))).publish()
    large = [artifact_updated(f"a{number}") for number in range(4)]
    for event in large:
        event.artifact_updated.data = lab.random.randbytes(LARGE // 2)
    publication.send(*notes(2_500), *large)
    await publication.finished()
    found = [batch for call in range(len(script.batches)) for batch in batches(script, call)]
    require(max(len(batch.events) for batch in found) <= MAX_BATCH_EVENTS, "a batch has more than 1,000 events")
    require(max(batch.ByteSize() for batch in found) <= MAX_BATCH_BYTES, "a batch has more than 1 MiB")
    expect(sum(len(batch.events) for batch in found), 2_506, "events that were sent")


@case
async def large_values(lab: Lab) -> None:
    """Publish 3 MiB in events of almost 1 MiB each."""
    server = await lab.server()
    publication = await (await lab.client(server.target)).publish()
    large = [artifact_updated(f"a{number}") for number in range(3)]
    for event in large:
        event.artifact_updated.data = lab.random.randbytes(LARGE)
    publication.send(*large)
    await publication.finished()
    log = await listed(server.stubs)
    same = [event.artifact_updated for event in log[1:-1]] == [event.artifact_updated for event in large]
    require(same, "the recorded events are not those that were sent")


@case
async def several_runs(lab: Lab) -> None:
    """Publish several runs at once through one client, each by itself: the end of one does not end another."""
    server = await lab.server()
    program = await lab.client(server.target)
    publications = [await program.publish(f"run-{number}") for number in range(5)]
    wanted = [notes(20) for _ in publications]
    for publication, events in zip(publications, wanted, strict=True):
        publication.send(*events[:10])
    await publications[0].flushed()
    await publications[0].finished()
    for publication, events in [*zip(publications, wanted, strict=True)][1:]:
        publication.send(*events[10:])
        await publication.finished()
    await check_log(server.stubs, wanted[0][:10], "run-0")
    for number in range(1, 5):
        await check_log(server.stubs, wanted[number], f"run-{number}")


@case
async def run_that_failed(lab: Lab) -> None:
    """End a run as FAILED with its error, and one as CANCELLED."""
    server = await lab.server()
    program = await lab.client(server.target)
    for state in ("FAILED", "CANCELLED"):
        publication = await program.publish(state)
        publication.finish(state, f"it was {state}")
        await publication.operation.done()
        run = await get(server.stubs, state)
        expect(RunState.Name(run.state), f"RUN_STATE_{state}", "the state of the run")
        require(f"it was {state}" in run.result.error.message or state == "CANCELLED", "the run has no error message")


@case
async def cancel_request(lab: Lab) -> None:
    """Report a request to cancel with its reason, and keep publishing until the application ends the run."""
    server = await lab.server()
    publication = await (await lab.client(server.target)).publish()
    publication.send(*notes(1))
    await publication.flushed()
    await server.stubs.runs.CancelRun(CancelRunRequest(run_id="run", reason="too slow"))
    expect(await publication.operation.value("cancel_requested"), "too slow", "the reason")
    publication.send(*notes(1))
    publication.finish("CANCELLED")
    await publication.operation.done()
    run = await get(server.stubs)
    expect(RunState.Name(run.state), "RUN_STATE_CANCELLED", "the state of the run")
    expect(run.last_sequence, 4, "the last sequence")


@case
async def producer_heartbeat(lab: Lab) -> None:
    """Send empty batches while there is nothing to publish, three within the run's producer_timeout."""
    server = await lab.server()
    create = {"name": "weather", "producerTimeout": "2s"}
    publication = await (await lab.client(server.target)).publish(create=create)
    publication.send(*notes(1))
    await publication.flushed()
    await lab.pause(4)
    expect(RunState.Name((await get(server.stubs)).state), "RUN_STATE_RUNNING", "the state of a silent run")
    await publication.finished()


@case
async def fenced_producer(lab: Lab) -> None:
    """Stop with PRODUCER_FENCED when a newer epoch of the producer publishes."""
    server = await lab.server()
    older = await (await lab.client(server.target)).publish(producer="p", epoch=1)
    older.send(*notes(1))
    await older.flushed()
    newer = await (await lab.client(server.target)).publish(new=False, producer="p", epoch=2)
    newer.send(*notes(1))
    await newer.flushed()
    older.send(*notes(1))
    older.flush()
    await older.operation.fails("PRODUCER_FENCED")
    await newer.finished()
    expect((await get(server.stubs)).last_sequence, 4, "the last sequence")


@case
async def successor(lab: Lab) -> None:
    """Continue the run of a process that was killed under a higher epoch: nothing durable is lost or repeated."""
    server = await lab.server()
    first = await lab.client(server.target)
    older = await first.publish(producer="p", epoch=1)
    durable, maybe = notes(20), notes(200)
    older.send(*durable)
    await older.flushed()
    older.send(*maybe)
    await first.kill()
    newer = await (await lab.client(server.target)).publish(new=False, producer="p", epoch=2)
    rest = notes(10)
    newer.send(*rest)
    await newer.finished()
    ids = [event.event_id for event in (await listed(server.stubs))[1:-1]]
    between = len(ids) - len(durable) - len(rest)
    wanted = [event.event_id for event in (*durable, *maybe[: max(0, between)], *rest)]
    expect(ids, wanted, "the IDs of the events")
