"""The client program under test: commands to it in JSON lines, and the lines that it reports."""

import asyncio
import json
import shlex
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import IO, Any, Self

from google.protobuf.json_format import MessageToDict, ParseDict

from conformance.suite import Unsupported, Violation, expect
from lavant.v1.event_pb2 import Event

PATIENCE = 20.0  # seconds for what has to happen
EXIT_LIMIT = 10.0  # twice what a driver has: the machine may be busy
LONGEST_LINE = 32 << 20


@dataclass(frozen=True, slots=True)
class Failure:
    """Error by which an operation ended; `reason` and `code` are empty where no server has named them."""

    reason: str
    code: str
    message: str


class Operation:
    """Something that the program does, and the lines that it has reported about it."""

    def __init__(self, program: "Program", number: int, do: str) -> None:
        self.lines: list[dict[str, Any]] = []
        self._program = program
        self._number = number
        self._do = do
        self._changed = asyncio.Event()

    def command(self, do: str, **fields: Any) -> None:
        """Send a command about this operation."""
        self._program.send({"of": self._number, "do": do, **fields})

    def take(self, line: dict[str, Any]) -> None:
        """Accept a line that the program has reported."""
        if self.has_ended:
            self._program.defects.append(f"{self._do} reported {line} after its end")
        self.lines.append(line)
        self.wake()

    def wake(self) -> None:
        """Let those that wait check again."""
        self._changed.set()

    @property
    def has_ended(self) -> bool:
        """Whether the program has reported the end."""
        return any(key in line for line in self.lines[-1:] for key in ("done", "error", "unsupported"))

    @property
    def received(self) -> list[Event]:
        """All events so far."""
        return [_event(line["event"]) for line in self.lines if "event" in line]

    def all(self, key: str) -> list[Any]:
        """Return the values of all lines that have a key."""
        return [line[key] for line in self.lines if key in line]

    async def wait(self, condition: Callable[[], bool], what: str, *, limit: float = PATIENCE) -> None:
        """Wait until the lines meet a condition; fails if the operation ends before."""
        try:
            async with asyncio.timeout(limit):
                while not condition():
                    if any("unsupported" in line for line in self.lines):
                        raise Unsupported(self._do)
                    if self.has_ended or self._program.is_dead:
                        ended = self.lines[-1:] if self.has_ended else "the exit of the program"
                        raise Violation(f"{self._do} ended with {ended} before {what}")
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            last = [*self.lines[-1:]]
            raise Violation(f"{self._do}: no {what} within {limit:g} s; the last line is {last}") from None

    async def value(self, key: str, *, limit: float = PATIENCE) -> Any:
        """Return the value of the first line with a key, once it is reported."""
        await self.wait(lambda: bool(self.all(key)), f"line with {key!r}", limit=limit)
        return self.all(key)[0]

    async def events(self, number: int, *, limit: float = PATIENCE) -> list[Event]:
        """Return all events so far, once there are so many."""
        await self.wait(lambda: len(self.all("event")) >= number, f"{number} events", limit=limit)
        return self.received

    async def position(self) -> str:
        """Return what an application would store now, to continue there."""
        before = len(self.all("position"))
        self.command("position")
        await self.wait(lambda: len(self.all("position")) > before, "position")
        return str(self.all("position")[-1])

    async def ended(self, *, limit: float = PATIENCE) -> dict[str, Any]:
        """Return the last line, once the operation has ended in any way."""
        await self.wait(lambda: self.has_ended, "end", limit=limit)
        if "unsupported" in self.lines[-1]:
            raise Unsupported(self._do)
        return self.lines[-1]

    async def done(self, *, limit: float = PATIENCE) -> dict[str, Any]:
        """Return the outcome; fails if it is an error."""
        line = await self.ended(limit=limit)
        if "done" not in line:
            raise Violation(f"{self._do} failed: {line['error']}")
        return dict(line["done"])

    async def failure(self, *, limit: float = PATIENCE) -> Failure:
        """Return the error that the operation ends with; fails if it succeeds."""
        line = await self.ended(limit=limit)
        if "error" not in line:
            raise Violation(f"{self._do} succeeded: {line['done']}; expected an error")
        error = line["error"]
        return Failure(error.get("reason", ""), error.get("code", ""), error.get("message", ""))

    async def fails(self, reason: str, *, limit: float = PATIENCE) -> Failure:
        """Return the error, which must have an ErrorReason."""
        failure = await self.failure(limit=limit)
        expect(failure.reason, reason, f"the reason of the error of {self._do} ({failure.message})")
        return failure

    async def cancel(self) -> None:
        """Cancel, and wait for the end."""
        self.command("cancel")
        await self.ended()


class Program:
    """A process that wraps the client under test."""

    def __init__(self, process: Process) -> None:
        self.defects: list[str] = []
        self.is_dead = False
        self._process = process
        self._operations: dict[int, Operation] = {}
        self._numbers = count(1)
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def start(cls, command: str, log: IO[bytes]) -> Self:
        """Start a program by the command of a shell's line."""
        process = await asyncio.create_subprocess_exec(
            *shlex.split(command), stdin=PIPE, stdout=PIPE, stderr=log, limit=LONGEST_LINE
        )
        return cls(process)

    def begin(self, do: str, **fields: Any) -> Operation:
        """Begin an operation. Fields that are None are left out."""
        number = next(self._numbers)
        operation = self._operations[number] = Operation(self, number, do)
        self.send({"id": number, "do": do, **{name: value for name, value in fields.items() if value is not None}})
        return operation

    def read(self, run: str = "run", consumer: str | None = "ui", **fields: Any) -> Operation:
        """Begin to read a run."""
        return self.begin("read", run=run, consumer=consumer, **fields)

    async def publish(self, run: str = "run", *, new: bool = True, **fields: Any) -> "Publication":
        """Begin to publish a run, a new one or one that exists."""
        create = {"name": "weather"} if new else None
        operation = self.begin("publish", **{"run": run, "create": create, **fields})
        await operation.value("ready")
        return Publication(operation)

    def send(self, line: dict[str, Any]) -> None:
        """Send a line."""
        if self._process.stdin is not None and not self.is_dead:
            self._process.stdin.write(json.dumps(line).encode() + b"\n")

    async def kill(self) -> None:
        """End it without warning."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
        await self._reading

    async def close(self) -> int:
        """End its input, and return the status with which it exits; kill it if it does not in time."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            async with asyncio.timeout(EXIT_LIMIT):
                return await self._process.wait()
        except TimeoutError:
            await self.kill()
            raise Violation(f"the program did not exit within {EXIT_LIMIT:g} s after the end of its input") from None
        finally:
            await self._reading

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for text in self._process.stdout:
            try:
                line = json.loads(text)
                self._operations[line["id"]].take(line)
            except (ValueError, KeyError, TypeError):
                self.defects.append(f"not a line of the protocol: {text[:200]!r}")
        self.is_dead = True
        for operation in self._operations.values():
            operation.wake()


class Publication:
    """Publishing of one run through the program."""

    def __init__(self, operation: Operation) -> None:
        self.operation = operation
        self._flushes = count(1)

    def send(self, *events: Event) -> None:
        """Let the client queue events."""
        self.operation.command("send", events=[MessageToDict(event) for event in events])

    def flush(self) -> int:
        """Ask for a line once all that is queued is durable; return its tag."""
        tag = next(self._flushes)
        self.operation.command("flush", tag=tag)
        return tag

    async def flushed(self, tag: int | None = None) -> int:
        """Wait until all that is queued is durable; return the last producer sequence."""
        wanted = self.flush() if tag is None else tag

        def found() -> list[dict[str, Any]]:
            return [line for line in self.operation.lines if "flushed" in line and line.get("tag") == wanted]

        await self.operation.wait(lambda: bool(found()), "line with 'flushed'")
        return int(found()[0]["flushed"])

    async def refused(self) -> str:
        """Wait until all that is queued is durable or refused; return the reason of the refusal, or nothing."""
        tag = self.flush()
        lines = self.operation.lines
        await self.operation.wait(lambda: any(line.get("tag") == tag or "error" in line for line in lines), "flush")
        return str(lines[-1].get("error", {}).get("reason", ""))

    def finish(self, state: str = "SUCCEEDED", error_message: str | None = None) -> None:
        """End the run."""
        message = {} if error_message is None else {"error_message": error_message}
        self.operation.command("finish", state=state, **message)

    async def finished(self) -> dict[str, Any]:
        """End the run as SUCCEEDED, and return the outcome once all is durable."""
        self.finish()
        return await self.operation.done()


def _event(fields: dict[str, Any]) -> Event:
    return ParseDict(fields, Event(), ignore_unknown_fields=True)
