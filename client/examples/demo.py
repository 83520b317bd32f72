"""An agent at work, a server that is killed, a reader that is cut off; and no event is lost or repeated.

Run it with `make demo`. It takes about fifteen seconds and needs no network. Exit status 0: all claims held.
"""

import asyncio
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from examples.demo_agent import QUESTION, build_agent
from lavant.client import AsyncClient, Event, Usage
from lavant.client.integrations.pydantic_ai import LavantCapability

try:
    from rich.console import Console
except ModuleNotFoundError:
    Console = None  # type: ignore[assignment, misc]

RUN_ID = "demo"
CUT_AFTER = 25
KILL_AFTER = 95
DOWNTIME = 1.0
START_TIMEOUT = 20.0
TIMEOUT = 50.0


class View:
    """Prints a run as it happens; in colour if rich is installed."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, soft_wrap=True) if Console is not None else None
        self._in_text = False

    def event(self, event: Event) -> None:
        """Show an event."""
        match event.type:
            case "reasoning_delta":
                self._text(event.data.text, "italic dim")
            case "text_delta":
                self._text(event.data.text, "")
            case "tool_call_started":
                call = event.data.call
                self.line(f"  > {call.tool_name} {_short(call.arguments)}", "cyan")
            case "tool_call_finished":
                self.line(f"  < {event.data.tool_name} {_short(event.data.result)}", "green")
            case "progress_reported":
                usage = event.data.usage or Usage()
                tokens = f"{usage.input_tokens} tokens in, {usage.output_tokens} out"
                self.line(f"  = step {event.data.iteration} done, {tokens} so far", "dim")

    def note(self, text: str) -> None:
        """Show what the demo itself does."""
        self.line(f"** {text}", "bold yellow")

    def line(self, text: str, style: str = "") -> None:
        """Show a line."""
        self._print(("\n" if self._in_text else "") + text + "\n", style)
        self._in_text = False

    def _text(self, text: str, style: str) -> None:
        self._print(text, style)
        self._in_text = True

    def _print(self, text: str, style: str) -> None:
        if self._console is None:
            print(text, end="", flush=True)
        else:
            self._console.print(text, style=style or None, end="", markup=False)
            self._console.file.flush()


def _short(value: object, width: int = 90) -> str:
    text = json.dumps(value)
    return text if len(text) <= width else text[: width - 3] + "..."


class Killable(Protocol):
    """A server that can be killed and started again."""

    async def kill(self) -> None: ...

    async def start(self) -> None: ...


class ServerProcess:
    """A process of `python -m lavant.server` that keeps its port and its store when it is started again."""

    def __init__(self, folder: Path) -> None:
        self.target = ""
        self._folder = folder
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start the server, and wait until it serves."""
        arguments = ["--listen", self.target or "127.0.0.1:0", "--http", "off", "--admin", "off"]
        arguments += ["--store", f"sqlite:///{self._folder / 'lavant.db'}"]
        with (self._folder / "server.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "lavant.server", *arguments, stdout=asyncio.subprocess.PIPE, stderr=log
            )
        self.target = await asyncio.wait_for(self._read_address(self._process), START_TIMEOUT)

    async def kill(self) -> None:
        """Kill the server with SIGKILL: no warning, no time to clean up."""
        await self._end(kill=True)

    async def stop(self) -> None:
        """Stop the server, and wait until it has."""
        await self._end(kill=False)

    async def _end(self, *, kill: bool) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.returncode is None:
            process.kill() if kill else process.terminate()
        await process.wait()

    async def _read_address(self, process: asyncio.subprocess.Process) -> str:
        assert process.stdout is not None
        line = (await process.stdout.readline()).decode()
        fields = dict(word.split("=", 1) for word in line.split() if "=" in word)
        if "grpc" not in fields:
            log = (self._folder / "server.log").read_text()
            raise RuntimeError(f"the server did not start: {line}{log}")
        return fields["grpc"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """The events that readers got and that are stored, and the sequence after which the server was killed."""

    stored: Sequence[Event]
    live: Sequence[Event]
    before_cut: Sequence[Event]
    after_cut: Sequence[Event]
    killed_at: int

    def findings(self) -> Iterator[tuple[str, bool]]:
        """Yield each claim, and whether it holds."""
        stored, cut = self.stored, [*self.before_cut, *self.after_cut]
        last = len(stored)
        numbers = [event.sequence for event in stored]
        types = [event.type for event in stored]
        is_sealed = types[:1] == ["run_started"] and types.count("run_finished") == 1 and types[-1] == "run_finished"
        shown = "".join(event.data.text for event in self.live if event.type == "text_delta")
        messages = [event.data for event in stored if event.type == "message_finished"]
        stored_text = "".join(part.text for message in messages for part in message.parts)
        split = f"{len(self.before_cut)} + {len(self.after_cut)}"
        yield f"the log holds {last} events, numbered 1 to {last} without a gap", numbers == [*range(1, last + 1)]
        yield "it begins with run_started and ends with run_finished, once", is_sealed
        yield f"the server was killed in the middle, after event {self.killed_at}", 0 < self.killed_at < last
        yield "the live reader got the same events, once each, byte for byte", _bytes(self.live) == _bytes(stored)
        yield f"the second reader was cut off in the middle: {split} events", bool(self.before_cut and self.after_cut)
        yield "with its token it got the same events, once each, byte for byte", _bytes(cut) == _bytes(stored)
        yield "the text that was shown live is the text of the stored messages", shown == stored_text != ""


def _bytes(events: Sequence[Event]) -> list[bytes]:
    return [event.proto.SerializeToString(deterministic=True) for event in events]


class Demo:
    """A server, an agent, a live reader, and a second reader that is cut off."""

    def __init__(self, server: Killable, client: AsyncClient, view: View) -> None:
        self._server = server
        self._client = client
        self._view = view
        self._live: list[Event] = []
        self._kill_now = asyncio.Event()
        self._killed_at = 0

    async def play(self) -> Evidence:
        """Run all of them at once; return the evidence."""
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
                if event.sequence == KILL_AFTER:
                    self._kill_now.set()

    async def _kill_server(self) -> None:
        await self._kill_now.wait()
        await self._server.kill()
        self._killed_at = self._live[-1].sequence
        self._view.note(f"server killed (SIGKILL) after event {self._killed_at}; the agent does not notice")
        await asyncio.sleep(DOWNTIME)
        await self._server.start()
        self._view.note("server runs again, on the same store")

    async def _read_in_two(self) -> tuple[list[Event], list[Event]]:
        before: list[Event] = []
        async with self._client.runs.stream(RUN_ID, consumer="audit", wait_for_run=True) as stream:
            async for event in stream:
                before.append(event)
                if event.sequence >= CUT_AFTER and stream.last_sequence == event.sequence:
                    break
        token = stream.resume_token
        self._view.note(f"second reader cut off after event {before[-1].sequence}; its token: {token[:16]}...")
        await self._kill_now.wait()
        again = self._client.runs.stream(RUN_ID, consumer="audit", resume_token=token)
        return before, [event async for event in again]


def report(evidence: Evidence, view: View) -> int:
    """Show each finding; return the exit status."""
    view.line("")
    findings = [*evidence.findings()]
    for claim, holds in findings:
        view.line(f"  [{'ok' if holds else 'NO'}] {claim}", "green" if holds else "bold red")
    held = all(holds for _, holds in findings)
    view.note("VERDICT: every event, once, in order" if held else "VERDICT: IT DID NOT HOLD")
    return 0 if held else 1


async def main() -> int:
    """Run the demo on a server of its own; return the exit status."""
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
    return report(evidence, view)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
