"""Servers that die and connections that are cut, in the middle of reading and of publishing."""

import asyncio

from conformance.cases.publishing import check_log, notes
from conformance.lab import Lab
from conformance.program import Publication
from conformance.scripts import FOREVER, asked, plays, sequences, whole
from conformance.suite import Invalid, case, expect, require
from lavant.v1.event_pb2 import Event
from support.calls import append, create, listed
from support.events import a_run_of, run_started
from support.scripted import Script, events, opened

KILLS = 3
STEP = 40  # events between two kills
CUTS = 3  # fewer prove nothing
SIZE, CHUNK = 1_500, 50  # events


@case
async def killed_server(lab: Lab) -> None:
    """Read on over three kills of the server in the middle of the stream: no event is missed or repeated."""
    process = await lab.server_process()
    run = a_run_of((KILLS + 1) * STEP)
    stubs = await lab.connected(process.target)
    await create(stubs)
    read = (await lab.client(process.target)).read()
    for kill in range(KILLS + 1):
        start = kill * STEP
        await append(stubs, run[start : start + STEP], first=start + 1)
        await read.events(start + STEP // 2)
        if kill < KILLS:
            await process.restart()
            stubs = await lab.connected(process.target)
    await read.done()
    expect(sequences(read.received), [*range(1, len(run) + 1)], "the sequences")


@case
async def killed_server_publishing(lab: Lab) -> None:
    """Publish on over three kills of the server: every event is stored once, in order."""
    process = await lab.server_process()
    publication = await (await lab.client(process.target)).publish()
    wanted = notes((KILLS + 1) * STEP)
    for kill in range(KILLS):
        start = kill * STEP
        publication.send(*wanted[start : start + STEP // 2])
        await publication.flushed()
        publication.send(*wanted[start + STEP // 2 : start + STEP])
        await process.restart()
    publication.send(*wanted[KILLS * STEP :])
    await publication.finished()
    await check_log(await lab.connected(process.target), wanted)


@case
async def cut_anywhere(lab: Lab) -> None:
    """Read over connections that are cut after any number of bytes: no event is missed or repeated."""
    server = await lab.server()
    await create(server.stubs)
    proxy = await lab.proxy(server.target, least=2_048, most_down=1 << 15)
    read = (await lab.client(proxy.target)).read(heartbeat_interval=1)
    run = a_run_of(SIZE)
    for start in range(0, SIZE, CHUNK):
        await append(server.stubs, run[start : start + CHUNK], first=start + 1)
        await read.events(min(SIZE, start + CHUNK))
    await read.done()
    expect(sequences(read.received), [*range(1, SIZE + 1)], "the sequences")
    if proxy.hits < CUTS:
        raise Invalid(f"only {proxy.hits} connections were cut")


@case
async def cut_anywhere_publishing(lab: Lab) -> None:
    """Publish over connections that are cut after any number of bytes: every event is stored once, in order."""
    server = await lab.server()
    proxy = await lab.proxy(server.target, least=4_096, most_up=1 << 16, most_down=1 << 14)
    publication = await (await lab.client(proxy.target)).publish()
    wanted = notes(SIZE)
    for start in range(0, SIZE, 250):
        publication.send(*wanted[start : start + 250])
        await publication.flushed()
    await publication.finished()
    await check_log(server.stubs, wanted)
    if proxy.hits < CUTS:
        raise Invalid(f"only {proxy.hits} connections were cut")


@case
async def half_open(lab: Lab) -> None:
    """Resume at once, by a higher attempt, while the server still believes in the connection that was cut."""
    server = await lab.server()
    await create(server.stubs)
    await append(server.stubs, a_run_of(8)[:4])
    proxy = await lab.proxy(server.target)
    read = (await lab.client(proxy.target)).read(heartbeat_interval=1)
    await read.events(4)
    proxy.black_hole()
    await append(server.stubs, a_run_of(8)[4:], first=5)
    await read.events(8, limit=8)
    await read.done()
    expect(sequences(read.received), [*range(1, 9)], "the sequences")


@case
async def silent_connection(lab: Lab) -> None:
    """Treat a stream without a frame for three heartbeats as cut, and continue over another connection."""
    script = Script([plays(opened(heartbeat_ms=200), events(1, 2), FOREVER()), whole(3)])
    read = (await lab.client(await lab.scripted(script))).read()
    await read.events(3, limit=5)
    await read.done()
    expect(sequences(read.received), [1, 2, 3], "the sequences")
    require(script.peers[0] != script.peers[1], "the second call came over the connection that fell silent")


@case
async def heartbeats_keep_alive(lab: Lab) -> None:
    """Stay with a stream whose heartbeats come in time, however long no event comes."""
    server = await lab.server()
    await create(server.stubs)
    await append(server.stubs, [run_started()])
    read = (await lab.client(server.target)).read(heartbeat_interval=1)
    await read.events(1)
    await lab.pause(4.5)
    require(len(read.all("opened")) <= 1, "the stream was opened again")
    await append(server.stubs, a_run_of(5)[1:], first=2)
    await read.done()


@case
async def connection_of_age(lab: Lab) -> None:
    """Resume when the server closes the connection by GOAWAY for its age."""
    script = Script([plays(opened(), events(1), FOREVER()), plays(opened(), events(2), FOREVER()), whole(3)])
    options = [("grpc.max_connection_age_ms", 600), ("grpc.max_connection_age_grace_ms", 100)]
    read = (await lab.client(await lab.scripted(script, options))).read()
    await read.done()
    expect(sequences(read.received), [1, 2, 3], "the sequences")


@case
async def streams_of_age(lab: Lab) -> None:
    """Read on over the planned ends of streams that reach their age."""
    server = await lab.server(max_stream_age=1)
    await create(server.stubs)
    run = a_run_of(12)
    read = (await lab.client(server.target)).read()
    for number, event in enumerate(run, 1):
        await append(server.stubs, [event], first=number)
        await read.events(number)
        await lab.pause(0.25)
    await read.done()
    expect(sequences(read.received), [*range(1, 13)], "the sequences")


@case
async def server_drains(lab: Lab) -> None:
    """Read and publish on over the planned stop of a server, and its start at the same address."""
    process = await lab.server_process()
    program = await lab.client(process.target)
    publication = await program.publish()
    wanted = notes(60)
    read = program.read(wait_for_run=True)
    publication.send(*wanted[:20])
    await read.events(21)
    await process.terminate()
    publication.send(*wanted[20:40])
    await process.start()
    publication.send(*wanted[40:])
    await publication.finished()
    await read.done()
    expect(sequences(read.received), [*range(1, 63)], "the sequences")
    await check_log(await lab.connected(process.target), wanted)


@case
async def reading_and_publishing(lab: Lab) -> None:
    """Read a run while it is published through the same bad connection."""
    server = await lab.server()
    proxy = await lab.proxy(server.target, least=8_192, most_up=1 << 17, most_down=1 << 17)
    program = await lab.client(proxy.target)
    publication = await program.publish()
    read = program.read(wait_for_run=True, heartbeat_interval=1)
    wanted: list[Event] = notes(1_500)

    async def send(publication: Publication) -> None:
        for start in range(0, len(wanted), 150):
            publication.send(*wanted[start : start + 150])
            await publication.flushed()
            # What a reader is behind may come in one frame, which connections that are cut so early would seldom pass.
            await read.events(start + 150)
        await publication.finished()

    await lab.concurrently(send(publication), read.done(limit=35))
    expect(sequences(read.received), [*range(1, len(wanted) + 3)], "the sequences")
    expect(len(await listed(server.stubs)), len(wanted) + 2, "recorded events")


@case
async def cancelled_while_waiting(lab: Lab) -> None:
    """Stop when the application cancels while the client waits to reconnect."""
    script = Script([plays(opened(), events(1), then=None)] + [plays()] * 50)
    read = (await lab.client(await lab.scripted(script))).read()
    await asked(script, 3)
    await read.cancel()
    calls = len(script.requests)
    await asyncio.sleep(1)
    require(len(script.requests) <= calls + 1, "calls follow after the cancellation")
