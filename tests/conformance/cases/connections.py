"""Connections: several addresses, servers that are not there yet, TLS, and many readers."""

import asyncio

from conformance.lab import Lab
from conformance.scripts import sequences
from conformance.suite import case, expect, require
from support.calls import append, create, ended_run
from support.certificates import Authority, tls_settings
from support.events import a_run_of, run_started
from support.server import free_address

READERS = 150


@case
async def several_addresses(lab: Lab) -> None:
    """Read from whichever of several addresses has a live server."""
    server = await lab.server()
    await ended_run(server.stubs)
    read = (await lab.client(free_address(), server.target)).read()
    await read.done()
    expect(sequences(read.received), [1, 2, 3, 4], "the sequences")


@case
async def late_server(lab: Lab) -> None:
    """Wait for a server that does not listen yet, with reads and with runs to publish."""
    process = await lab.server_process()
    await process.terminate()
    program = await lab.client(process.target)
    publication = await program.publish()
    read = program.read(wait_for_run=True)
    await lab.pause(0.5)
    await process.start()
    await publication.finished()
    await read.done()
    expect(sequences(read.received), [1, 2], "the sequences")


@case
async def trusted_server(lab: Lab) -> None:
    """Connect by TLS to a server whose certificate comes from the CA of the application, and to no other."""
    authority, other = Authority(lab.folder / "ours"), Authority(lab.folder / "theirs")
    server = await lab.server(credentials=authority.channel_credentials(), **tls_settings(authority.server()))
    await ended_run(server.stubs)
    port = server.target.rpartition(":")[2]
    read = (await lab.client(f"localhost:{port}", ca=str(authority.path))).read()
    await read.done()
    expect(sequences(read.received), [1, 2, 3, 4], "the sequences")
    wrong = (await lab.client(f"localhost:{port}", ca=str(other.path), deadline=2)).begin("get_run", run="run")
    await wrong.failure()


@case
async def many_readers(lab: Lab) -> None:
    """Read 150 streams at once through one client."""
    server = await lab.server()
    await create(server.stubs)
    await append(server.stubs, [run_started()])
    program = await lab.client(server.target)
    reads = [program.read(consumer=f"reader-{number}") for number in range(READERS)]
    await asyncio.gather(*(read.events(1) for read in reads))
    await append(server.stubs, a_run_of(4)[1:], first=2)
    await asyncio.gather(*(read.done() for read in reads))
    counts = {len(read.received) for read in reads}
    require(counts == {4}, f"the readers have received {counts} events")


@case
async def calls_beside_streams(lab: Lab) -> None:
    """Make short calls while 150 streams are open."""
    server = await lab.server()
    await create(server.stubs)
    await append(server.stubs, [run_started()])
    program = await lab.client(server.target)
    reads = [program.read(consumer=f"reader-{number}") for number in range(READERS)]
    await asyncio.gather(*(read.events(1) for read in reads))
    for _ in range(5):
        await program.begin("get_run", run="run").done(limit=5)
