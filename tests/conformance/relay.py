"""One run in four languages behind a proxy and two servers: Go publishes, TypeScript and Rust read, Java ends it.

`make test-clients` runs this after it has built the drivers. Exits with 1 if the log, or what was read, is wrong.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from conformance.cases.publishing import notes
from conformance.program import Program
from conformance.suite import Violation, expect, require
from support.calls import listed
from support.cluster import running_cluster
from support.server import Stubs, connected

DRIVERS = {
    "Go": "build/go/conformance",
    "TypeScript": "node client/typescript/build/conformance.js",
    "Rust": "build/rust/debug/examples/conformance",
    "Java": "client/java/conformance",
}
HALF = 200


@asynccontextmanager
async def drivers(target: str) -> AsyncIterator[list[Program]]:
    """Start the driver of each language, connected."""
    async with AsyncExitStack() as stack:
        started = []
        for command in DRIVERS.values():
            program = await Program.start(command, sys.stderr.buffer)
            stack.push_async_callback(program.kill)
            await program.begin("connect", targets=[target]).done()
            started.append(program)
        yield started
        for program in started:
            expect(await program.close(), 0, "the exit status of a driver")


async def relay(stubs: Stubs, programs: Sequence[Program]) -> None:
    """Publish and read one run in all languages, and compare."""
    go, typescript, rust, java = programs
    sent = notes(2 * HALF)
    first = await go.publish(producer="weather", epoch=1)
    first.send(*sent[:HALF])
    await first.flushed()
    await first.operation.cancel()

    half = typescript.read(consumer="reader", hold=True)
    for number in range(1, HALF // 2 + 1):
        await half.events(number)
        half.command("next")
    read = (await half.events(HALF // 2 + 1))[:-1]  # the last one is held, not handled
    token = await half.position()
    await half.cancel()

    rest = rust.read(consumer="reader", resume_token=token)
    await rest.events(HALF + 1 - len(read))
    second = await java.publish(new=False, producer="weather", epoch=2)
    second.send(*sent[HALF:])
    await second.finished()
    expect((await rest.done())["reason"], "RUN_FINISHED", "the end of the stream")
    read += rest.received

    log = await listed(stubs)
    expect([event.sequence for event in log], [*range(1, len(sent) + 3)], "the sequences of the log")
    expect([event.event_id for event in log[1:-1]], [event.event_id for event in sent], "the events of the log")
    require([event.sequence for event in read] == [event.sequence for event in log], "what was read is not the log")


async def main() -> int:
    """Run it, and report."""
    with TemporaryDirectory() as folder:
        async with running_cluster(Path(folder)) as cluster, connected(cluster.target) as stubs:
            try:
                async with drivers(cluster.target) as programs:
                    await relay(stubs, programs)
            except Violation as violation:
                print(f"FAILED: {violation}")
                return 1
    print(f"passed: one run by {', '.join(DRIVERS)}, behind Envoy and two servers")
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
