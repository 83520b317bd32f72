"""An agent at work, a server that is killed, a reader that is cut off; and not one event lost or doubled.

Run it with `make demo`. It takes about fifteen seconds and needs no network. Exit status 0: all of it held.
"""

import asyncio
import sys
import tempfile
from pathlib import Path
from typing import Protocol

from examples.demo_agent import QUESTION, build_agent
from examples.demo_proof import Evidence, findings
from examples.demo_server import ServerProcess
from examples.demo_view import View
from lavant.client import AsyncClient, Event
from lavant.client.integrations.pydantic_ai import LavantCapability

RUN_ID = "demo"
CUT_BEHIND = 25
KILL_BEHIND = 95
DOWNTIME = 1.0
TIMEOUT = 50.0


class Victim(Protocol):
    """A server that is killed, and comes back."""

    async def kill(self) -> None: ...

    async def start(self) -> None: ...


class Demo:
    """The cast: a server, an agent, a live reader, and a second reader that is cut."""

    def __init__(self, server: Victim, client: AsyncClient, view: View) -> None:
        self._server = server
        self._client = client
        self._view = view
        self._live: list[Event] = []
        self._kill_now = asyncio.Event()
        self._killed_at = 0

    async def play(self) -> Evidence:
        """Let all of them do their part at once; return what came of it."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._run_agent())
            group.create_task(self._read_live())
            group.create_task(self._kill_server())
            cut = group.create_task(self._read_in_two())
        before, after = cut.result()
        return Evidence(
            stored=[event async for event in self._client.runs.events(RUN_ID)],
            live=self._live,
            before_cut=before,
            after_cut=after,
            killed_at=self._killed_at,
        )

    async def _run_agent(self) -> None:
        recording = LavantCapability[None](self._client, run_id=RUN_ID, on_error="raise")
        await build_agent().run(QUESTION, capabilities=[recording])

    async def _read_live(self) -> None:
        async with self._client.runs.stream(RUN_ID, consumer="terminal", wait_for_run=True) as stream:
            async for event in stream:
                self._live.append(event)
                self._view.event(event)
                if event.sequence == KILL_BEHIND:
                    self._kill_now.set()

    async def _kill_server(self) -> None:
        await self._kill_now.wait()
        await self._server.kill()
        self._killed_at = self._live[-1].sequence
        self._view.note(f"server killed (SIGKILL) behind event {self._killed_at}; the agent works on, unaware")
        await asyncio.sleep(DOWNTIME)
        await self._server.start()
        self._view.note("server is back, on the same store")

    async def _read_in_two(self) -> tuple[list[Event], list[Event]]:
        before: list[Event] = []
        async with self._client.runs.stream(RUN_ID, consumer="audit", wait_for_run=True) as stream:
            async for event in stream:
                before.append(event)
                if event.sequence >= CUT_BEHIND and stream.last_sequence == event.sequence:
                    break
        token = stream.resume_token
        self._view.note(f"second reader cut off behind event {before[-1].sequence}; its token: {token[:16]}...")
        await self._kill_now.wait()
        again = self._client.runs.stream(RUN_ID, consumer="audit", resume_token=token)
        return before, [event async for event in again]


async def main() -> int:
    """Play the demo and judge it; return the exit status."""
    view = View()
    with tempfile.TemporaryDirectory(prefix="lavant-demo-") as folder:
        server = ServerProcess(Path(folder))
        await server.start()
        view.note(f"server on {server.target}; asking: {QUESTION}")
        try:
            async with asyncio.timeout(TIMEOUT), AsyncClient(server.target) as client:
                evidence = await Demo(server, client, view).play()
        finally:
            await server.stop()
    return judge(evidence, view)


def judge(evidence: Evidence, view: View) -> int:
    """Show each finding and the verdict."""
    view.line("")
    results = [*findings(evidence)]
    for claim, holds in results:
        view.line(f"  [{'ok' if holds else 'NO'}] {claim}", "green" if holds else "bold red")
    held = all(holds for _, holds in results)
    view.note("VERDICT: every event, once, in order" if held else "VERDICT: IT DID NOT HOLD")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
