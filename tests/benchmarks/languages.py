"""The clients of all languages: one run that is read, and one that is published."""

import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack
from functools import partial
from itertools import count
from pathlib import Path

from benchmarks.kit.report import Aim, Table
from benchmarks.kit.rounds import Bench, Figures, part
from benchmarks.peers import lavant
from benchmarks.peers.base import UnavailableError
from benchmarks.peers.programs import run as build
from conformance.program import Program

_TREE = Path(__file__).parents[2]
PYTHON = "Python client"
# What builds each driver, and what runs it. Rust's is built as a release: the suite's is not optimized.
DRIVERS: Mapping[str, tuple[tuple[str, ...], str]] = {
    "Go client": (
        ("go", "build", "-C", "client/go", "-o", "../../build/go/conformance", "./conformance"),
        "build/go/conformance",
    ),
    "Rust client": (
        ("cargo", "build", "--locked", "--quiet", "--release", "--example", "conformance"),
        "build/rust/release/examples/conformance",
    ),
    "TypeScript client": (("npm", "run", "--silent", "build"), "node client/typescript/build/conformance.js"),
    "Java client": (("mvn", "--quiet", "--batch-mode", "test-compile"), "client/java/conformance"),
}
_FOLDERS = {"Rust client": "client/rust", "TypeScript client": "client/typescript", "Java client": "client/java"}
_AIMS = {"Go client": 1.5, "Rust client": 1.5, "TypeScript client": 0.7}
_LIMIT = 120.0
_names = count(1)


async def run(bench: Bench) -> list[Table]:
    """Measure each client that can be built here, in a process of its own."""
    events = bench.size(200_000, quick=50_000)
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(lavant.serve(bench.subfolder("lavant")))
        log = stack.enter_context((bench.folder / "clients.log").open("wb"))
        commands = {PYTHON: f"{sys.executable} tests/conformance/drivers/python_client.py"}
        for name, (builder, command) in DRIVERS.items() if bench.products else ():
            try:
                build(*builder, folder=_TREE / _FOLDERS.get(name, "."))
                commands[name] = command
            except UnavailableError as error:
                print(f"\n{name} is left out: {error}", flush=True)
        programs = {}
        for name, command in commands.items():
            programs[name] = await Program.start(command, log)
            stack.push_async_callback(programs[name].kill)
            await programs[name].begin("connect", targets=[server.address]).done()
        await programs[PYTHON].begin("publish_fast", run="stored", count=events).done(limit=_LIMIT)
        measured = await bench.interleaved(
            {name: partial(_measure, program, events) for name, program in programs.items()}
        )
    return [
        Table(
            name=f"languages: {what}",
            title=f"{events:,} events {what} by the clients of each language",
            measured=part(measured, what),
            aims=[
                Aim(unit="events/s", system=name, beside=PYTHON, at_least=least)
                for name, least in _AIMS.items()
                if name in measured
            ],
            recorded=[],
            baseline=PYTHON,
        )
        for what in ("read", "published")
    ]


async def _measure(program: Program, events: int, _: int) -> Figures:
    read = await program.begin("read_fast", run="stored").done(limit=_LIMIT)
    assert read["events"] >= events
    name = f"published-{next(_names)}"
    published = await program.begin("publish_fast", run=name, count=events).done(limit=_LIMIT)
    return {"read: events/s": read["events"] / read["seconds"], "published: events/s": events / published["seconds"]}
