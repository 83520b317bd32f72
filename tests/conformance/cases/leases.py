"""Who reads: leases, rivals and take-overs."""

import grpc

from conformance.cases.endings import check_final
from conformance.lab import Lab
from conformance.scripts import UNAVAILABLE, plays, sequences, whole
from conformance.suite import case, expect, require
from support.calls import append, create, ended_run
from support.events import a_run_of, run_started
from support.scripted import Script, events, opened, status
from support.server import Server
from support.streams import failure
from support.streams import opened as open_stream
from support.streams import read as read_frame

Code = grpc.StatusCode


async def started_run(lab: Lab) -> Server:
    """Serve a run that has started."""
    server = await lab.server()
    await create(server.stubs)
    await append(server.stubs, [run_started()])
    return server


@case
async def busy_consumer(lab: Lab) -> None:
    """Report CONSUMER_BUSY while another session holds the lease; it keeps its stream."""
    server = await started_run(lab)
    rival = await open_stream(server.stubs, session_id="rival", attempt=1)
    await (await lab.client(server.target)).read().fails("CONSUMER_BUSY")
    await append(server.stubs, a_run_of(4)[1:], first=2)
    await read_frame(rival)
    rival.cancel()


@case
async def two_readers(lab: Lab) -> None:
    """Use a session of its own for each reader: the second one of a consumer gets CONSUMER_BUSY."""
    server = await started_run(lab)
    program = await lab.client(server.target)
    first = program.read()
    await first.events(1)
    await program.read().fails("CONSUMER_BUSY")
    await append(server.stubs, a_run_of(4)[1:], first=2)
    await first.done()
    expect(sequences(first.received), [1, 2, 3, 4], "the sequences of the first reader")


@case
async def take_over(lab: Lab) -> None:
    """Take the lease over from another session if the application asks for it."""
    server = await started_run(lab)
    rival = await open_stream(server.stubs, session_id="rival", attempt=1)
    read = (await lab.client(server.target)).read(take_over=True)
    await read.events(1)
    expect((await failure(rival)).reason, "STREAM_DISPLACED", "how the stream of the rival ends")
    await read.cancel()


@case
async def displaced_reader(lab: Lab) -> None:
    """Stop with STREAM_DISPLACED when a newer stream reads, and leave it alone."""
    server = await started_run(lab)
    read = (await lab.client(server.target)).read()
    await read.events(1)
    rival = await open_stream(server.stubs, session_id="rival", attempt=1, take_over=True)
    await read.fails("STREAM_DISPLACED")
    await lab.pause(0.5)
    await append(server.stubs, a_run_of(4)[1:], first=2)
    await read_frame(rival)
    rival.cancel()


@case
async def take_over_once(lab: Lab) -> None:
    """Send `take_over` until the session was opened once, and not afterwards."""
    cut = plays(opened(), events(1), then=UNAVAILABLE)
    script = Script([plays(then=UNAVAILABLE), cut, whole(2)])
    await (await lab.client(await lab.scripted(script))).read(take_over=True).done()
    expect([request.take_over for request in script.requests], [True, True, False], "take_over of the calls")


@case
async def displaced_while_cut(lab: Lab) -> None:
    """Report CONSUMER_BUSY after a reconnect to a lease that another session has taken over meanwhile."""
    server = await started_run(lab)
    proxy = await lab.proxy(server.target)
    read = (await lab.client(proxy.target)).read(take_over=True)
    await read.events(1)
    proxy.stall()
    rival = await open_stream(server.stubs, session_id="rival", attempt=1, take_over=True)
    proxy.cut()
    proxy.release()
    failed = await read.failure()
    require(failed.reason in ("CONSUMER_BUSY", "STREAM_DISPLACED"), f"the reason is {failed.reason!r}")
    await append(server.stubs, a_run_of(4)[1:], first=2)
    await read_frame(rival)
    rival.cancel()


@case
async def stale_attempt(lab: Lab) -> None:
    """Stop with STALE_ATTEMPT: a later call of the session reads."""
    await check_final(lab, "STALE_ATTEMPT", plays(then=status(Code.ABORTED, "STALE_ATTEMPT")))


@case
async def attempts_rise(lab: Lab) -> None:
    """Raise the attempt with every call of a session, and begin each reader with a new session."""
    script = Script([plays(then=UNAVAILABLE), plays(opened(), then=UNAVAILABLE), whole(1), whole(1)])
    program = await lab.client(await lab.scripted(script))
    await program.read(consumer="one").done()
    await program.read(consumer="other").done()
    attempts = [request.attempt for request in script.requests[:3]]
    require(attempts == sorted(set(attempts)), f"the attempts are {attempts}")
    sessions = [request.session_id for request in script.requests]
    expect(len(set(sessions[:3])), 1, "sessions of one reader")
    require(sessions[3] != sessions[0], "two readers have one session")


@case
async def several_consumers(lab: Lab) -> None:
    """Read one run by several consumers at once, each of which gets every event."""
    server = await lab.server()
    await ended_run(server.stubs, size=50)
    program = await lab.client(server.target)
    reads = [program.read(consumer=f"reader-{number}") for number in range(5)]
    for read in reads:
        await read.done()
        expect(sequences(read.received), [*range(1, 51)], "the sequences")
