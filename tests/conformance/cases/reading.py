"""Reading a run: which events come, where a reader starts and stops, and what it may store."""

from conformance.lab import Lab
from conformance.scripts import FOREVER, RUN_FINISHED, UNAVAILABLE, asked, plays, sequences, whole, with_later_field
from conformance.suite import case, expect, require
from lavant.v1 import event_service_pb2 as pb
from lavant.v1.event_pb2 import Event, EventType
from support.calls import append, create, ended_run
from support.conversation import conversation, texts, type_of, without_deltas
from support.events import a_run_of, artifact_updated, run_finished, run_started
from support.scripted import Script, end, events, opened
from support.server import Server
from support.streams import publish, recorded

LARGE = 1_000_000  # bytes; a batch has up to 1 MiB


async def recorded_conversation(lab: Lab) -> tuple[Server, list[Event]]:
    """Serve a run in which everything happens; return its log too."""
    server = await lab.server()
    await create(server.stubs)
    await publish(server.stubs, conversation(), batch_size=5)
    return server, await recorded(server.stubs)


@case
async def whole_run(lab: Lab) -> None:
    """Return every event of a recorded run once, in order and unchanged, and end."""
    server, log = await recorded_conversation(lab)
    read = (await lab.client(server.target)).read()
    expect((await read.done())["reason"], "RUN_FINISHED", "the reason of the end")
    expect(read.received, log, "the events")


@case
async def live_run(lab: Lab) -> None:
    """Return events while they are published, without waiting for the end of the run."""
    server = await lab.server()
    await create(server.stubs)
    read = (await lab.client(server.target)).read()
    for number, event in enumerate(a_run_of(6), 1):
        await append(server.stubs, [event], first=number)
        expect(sequences(await read.events(number)), [*range(1, number + 1)], "the sequences")
    await read.done()


@case
async def one_frame(lab: Lab) -> None:
    """Handle all parts of a frame that has several, in their order."""
    frame = opened()
    for other in (events(1, 2, last=True), RUN_FINISHED):
        frame.MergeFrom(other)
    frame.caught_up.SetInParent()
    read = (await lab.client(await lab.scripted(Script([plays(frame)])))).read()
    expect((await read.done())["reason"], "RUN_FINISHED", "the reason of the end")
    expect(sequences(read.received), [1, 2], "the sequences")


@case
async def token_of_every_frame(lab: Lab) -> None:
    """Keep the token of each frame that was handled, and reconnect with the last one."""
    cut = plays(opened(), events(1, 2), events(3), then=UNAVAILABLE)
    script = Script([cut, whole(4)])
    read = (await lab.client(await lab.scripted(script))).read()
    await read.done()
    expect(sequences(read.received), [1, 2, 3, 4], "the sequences")
    expect(script.requests[1].resume_token, "t3", "the token of the second call")


@case
async def token_of_heartbeat(lab: Lab) -> None:
    """Keep the tokens of frames without events too: of heartbeats, and of events that were all filtered out."""
    alive = pb.StreamEventsResponse(resume_token="t7", heartbeat=pb.Heartbeat())
    filtered = pb.StreamEventsResponse(resume_token="t9", events=pb.EventBatch())
    script = Script(
        [
            plays(opened(), events(1), alive, then=UNAVAILABLE),
            plays(opened(), filtered, then=UNAVAILABLE),
            whole(10),
        ]
    )
    await (await lab.client(await lab.scripted(script))).read().done()
    expect([request.resume_token for request in script.requests], ["", "t7", "t9"], "the tokens of the calls")


@case
async def position_resumes(lab: Lab) -> None:
    """Continue after the stored position with the very next event, in another process."""
    server = await lab.server()
    await create(server.stubs)
    run = a_run_of(8)
    await append(server.stubs, run[:5])
    first = (await lab.client(server.target)).read()
    await first.events(5)
    position = await first.position()
    await first.cancel()
    await append(server.stubs, run[5:], first=6)
    second = (await lab.client(server.target)).read(resume_token=position)
    await second.done()
    expect(sequences(second.received), [6, 7, 8], "the sequences after the position")


@case
async def position_of_handled_events(lab: Lab) -> None:
    """Let the position cover the events that the application has handled, and no others: it may die at any time."""
    server = await lab.server()
    await ended_run(server.stubs, size=9)
    program = await lab.client(server.target)
    held = program.read(hold=True)
    for number in (1, 2, 3):
        await held.events(number)
        if number < 3:
            held.command("next")
    position = await held.position()
    await program.kill()
    again = (await lab.client(server.target)).read(resume_token=position, take_over=True)
    await again.done()
    found = sequences(again.received)
    require(found and found[0] <= 3, f"event 3 was not handled, yet the stored position continues with {found[:1]}")
    expect(found, [*range(found[0], 10)], "the sequences after the position")


@case
async def one_event_at_a_time(lab: Lab) -> None:
    """Hand events over one by one: none before the application asks for it."""
    server = await lab.server()
    await ended_run(server.stubs, size=5)
    read = (await lab.client(server.target)).read(hold=True)
    for number in range(1, 6):
        expect(len(await read.events(number)), number, "events while one is being handled")
        await read.position()
        expect(len(read.received), number, "events while one is being handled")
        read.command("next")
    await read.done()


@case
async def types_filter(lab: Lab) -> None:
    """Ask for types of events: only these come, with gaps in their sequences, also after a reconnect."""
    server, log = await recorded_conversation(lab)
    program = await lab.client(server.target)
    read = program.read(types=["TOOL_CALL_FINISHED", "STEP_STARTED"])
    await read.done()
    kinds = (EventType.EVENT_TYPE_TOOL_CALL_FINISHED, EventType.EVENT_TYPE_STEP_STARTED)
    expect(read.received, [event for event in log if type_of(event) in kinds], "the events")


@case
async def deltas_none(lab: Lab) -> None:
    """Ask for no deltas: all other events come."""
    server, log = await recorded_conversation(lab)
    read = (await lab.client(server.target)).read(deltas="none")
    await read.done()
    expect(read.received, without_deltas(log), "the events")


@case
async def deltas_merged(lab: Lab) -> None:
    """Ask for merged deltas: they have the same text, and all other events come."""
    server, log = await recorded_conversation(lab)
    read = (await lab.client(server.target)).read(deltas="merged")
    await read.done()
    expect(texts(read.received), texts(log), "the texts")
    expect(without_deltas(read.received), without_deltas(log), "the other events")


@case
async def settings_of_every_call(lab: Lab) -> None:
    """Send the settings of the stream with every call of it."""
    script = Script([plays(opened(), events(1), then=UNAVAILABLE), whole(2)])
    read = (await lab.client(await lab.scripted(script))).read(types=["TEXT_DELTA"], deltas="merged", stop="head")
    await read.done()
    first, second = (
        (request.run_id, request.consumer_id, request.session_id, [*request.types], request.deltas, request.stop)
        for request in script.requests
    )
    expect(second, first, "the settings of the second call")
    require(first[2], "the session_id is empty")


@case
async def start_now(lab: Lab) -> None:
    """Start at the present end if asked to, and after the first frame, at its token instead."""
    script = Script([plays(then=UNAVAILABLE), plays(opened(), then=UNAVAILABLE), whole(5)])
    read = (await lab.client(await lab.scripted(script))).read(start="now")
    await read.done()
    starts = [(request.start, request.resume_token) for request in script.requests]
    now = pb.START_POSITION_NOW
    expect(starts, [(now, ""), (now, ""), (0, "t0")], "where the calls start")


@case
async def stop_at_head(lab: Lab) -> None:
    """Stop at the end of what is recorded if asked to, also of a run that has not ended."""
    server = await lab.server()
    await create(server.stubs)
    await append(server.stubs, a_run_of(5, finished=False))
    read = (await lab.client(server.target)).read(stop="head")
    expect((await read.done())["reason"], "HEAD_REACHED", "the reason of the end")
    expect(sequences(read.received), [1, 2, 3, 4, 5], "the sequences")


@case
async def wait_for_run(lab: Lab) -> None:
    """Wait for a run that does not exist yet if asked to."""
    script = Script([plays(opened(), then=UNAVAILABLE), whole(1)])
    await (await lab.client(await lab.scripted(script))).read(wait_for_run=True).done()
    expect([request.wait_for_run for request in script.requests], [True, True], "wait_for_run of the calls")
    server = await lab.server()
    read = (await lab.client(server.target)).read(wait_for_run=True)
    await ended_run(server.stubs)
    await read.done()
    expect(sequences(read.received), [1, 2, 3, 4], "the sequences")


@case
async def run_not_found(lab: Lab) -> None:
    """Report that the run does not exist, after one call."""
    server = await lab.server()
    await (await lab.client(server.target)).read("no-such-run").fails("RUN_NOT_FOUND")


@case
async def idle_timeout(lab: Lab) -> None:
    """End after the time without an event that the application has set, and do not reconnect."""
    server = await lab.server()
    await create(server.stubs)
    await append(server.stubs, [run_started()])
    read = (await lab.client(server.target)).read(idle_timeout=1)
    expect((await read.done())["reason"], "IDLE", "the reason of the end")
    expect(sequences(read.received), [1], "the sequences")


@case
async def largest_event(lab: Lab) -> None:
    """Receive an event of almost 1 MiB, the most that a batch may have, among others: 3 MiB in all."""
    server = await lab.server()
    await create(server.stubs)
    large = [artifact_updated(f"a{number}") for number in range(3)]
    for event in large:
        event.artifact_updated.data = lab.random.randbytes(LARGE)
    for number, event in enumerate([run_started(), *large, run_finished()], 1):
        await append(server.stubs, [event], first=number)
    read = (await lab.client(server.target)).read()
    await read.done()
    expect([event.ByteSize() > LARGE for event in read.received], [False, True, True, True, False], "large events")
    expect(read.received[1].artifact_updated.data, large[0].artifact_updated.data, "the content")


@case
async def slow_reader(lab: Lab) -> None:
    """Return all events once to an application that stalls for longer than the server waits."""
    server = await lab.server(write_timeout=0.5)
    await create(server.stubs)
    large = [artifact_updated(f"a{number}") for number in range(12)]
    for event in large:
        event.artifact_updated.data = lab.random.randbytes(LARGE)
    run = [run_started(), *large, run_finished()]
    for number, event in enumerate(run, 1):
        await append(server.stubs, [event], first=number)
    read = (await lab.client(server.target)).read(types=["RUN_STARTED", "ARTIFACT_UPDATED", "RUN_FINISHED"], hold=True)
    await read.events(1)
    await lab.pause(1.5)
    for number in range(1, len(run) + 1):
        await read.events(number)
        read.command("next")
    await read.done()
    expect(sequences(read.received), [*range(1, len(run) + 1)], "the sequences")


@case
async def newer_frames(lab: Lab) -> None:
    """Ignore fields and parts of frames that the client does not know, and keep their tokens."""
    unknown = with_later_field(pb.StreamEventsResponse(resume_token="t5"))
    first = plays(with_later_field(opened()), with_later_field(events(1)), unknown, then=UNAVAILABLE)
    script = Script([first, whole(6)])
    read = (await lab.client(await lab.scripted(script))).read()
    await read.done()
    expect(sequences(read.received), [1, 6], "the sequences")
    expect(script.requests[1].resume_token, "t5", "the token of the second call")


@case
async def newer_events(lab: Lab) -> None:
    """Return events whose payload or values the client does not know, rather than fail or leave them out."""
    frame = events(1, 2, 3)
    frame.events.events[1].CopyFrom(with_later_field(Event(sequence=2, event_id="later")))
    frame.events.events[2].run_state_changed.state = 77  # type: ignore[assignment]
    script = Script([plays(opened(), frame, events(4, last=True), RUN_FINISHED)])
    read = (await lab.client(await lab.scripted(script))).read()
    await read.done()
    expect(sequences(read.received), [1, 2, 3, 4], "the sequences")


@case
async def newer_end(lab: Lab) -> None:
    """Decide about an end whose reason the client does not know by `reconnect` alone."""
    later: pb.StreamEndReason.ValueType = 77  # type: ignore[assignment]
    script = Script([plays(opened(), events(1), end(later, reconnect=True)), plays(opened(), events(2), end(later))])
    read = (await lab.client(await lab.scripted(script))).read()
    await read.done()
    expect(sequences(read.received), [1, 2], "the sequences")
    expect(len(script.requests), 2, "calls")


@case
async def cancelled_read(lab: Lab) -> None:
    """End the call when the application cancels, and release the lease with it."""
    server = await lab.server()
    await create(server.stubs)
    await append(server.stubs, [run_started()])
    read = (await lab.client(server.target)).read()
    await read.events(1)
    await read.cancel()
    other = (await lab.client(server.target)).read()
    await other.events(1)
    await other.cancel()


@case
async def open_at_exit(lab: Lab) -> None:
    """Close the client while streams are open: the process ends within 5 s."""
    script = Script([plays(opened(), events(1), FOREVER())])
    program = await lab.client(await lab.scripted(script))
    await program.read().events(1)
    await asked(script, 1)
    expect(await program.close(), 0, "the status with which the program exits")
