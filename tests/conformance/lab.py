"""What a case works with: client programs, servers and what stands between them. All of it ends with the case."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Any, Self

from conformance.program import Program
from conformance.suite import Violation, require
from support.proxy import Proxy
from support.scripted import Script, scripted
from support.server import Server, ServerProcess, Stubs, connected, serving


class Lab:
    """Programs, servers and proxies of one case, in a folder of its own. `seed` decides what is random."""

    def __init__(self, command: str, folder: Path, seed: int = 1) -> None:
        self.folder = folder
        self.random = Random(seed)
        self._command = command
        self._stack = AsyncExitStack()
        self._log = self._stack.enter_context((folder / "stderr").open("wb"))
        self._programs: list[Program] = []
        self._servers = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            for program in self._programs:
                # After a failure, what it does at the end of its input is of no interest.
                status = 0 if program.is_dead or kind is not None else await program.close()
                await program.kill()
                require(kind is not None or status == 0, f"the program exited with status {status}")
                require(kind is not None or not program.defects, "; ".join(program.defects))
        finally:
            await self._stack.aclose()

    async def program(self, *arguments: str) -> Program:
        """Start a client program that is not connected."""
        program = await Program.start(" ".join((self._command, *arguments)), self._log)
        self._programs.append(program)
        return program

    async def client(self, *targets: str, **fields: Any) -> Program:
        """Start a client program, and connect it to some addresses."""
        program = await self.program()
        await program.begin("connect", targets=list(targets), **fields).done()
        return program

    async def server(self, **settings: Any) -> Server:
        """Start a server in this process, with a store of its own."""
        self._servers += 1
        folder = self.folder / f"server-{self._servers}"
        folder.mkdir()
        return await self._stack.enter_async_context(serving(folder, **settings))

    async def server_process(self, *flags: str) -> ServerProcess:
        """Start a server in a process of its own, which can be killed and started again."""
        self._servers += 1
        folder = self.folder / f"server-{self._servers}"
        folder.mkdir()
        process = ServerProcess(folder, {"LAVANT_LOG_LEVEL": "error"})
        self._stack.push_async_callback(process.kill)
        await process.start(*flags)
        return process

    async def connected(self, target: str) -> Stubs:
        """Return plain stubs of a server: the suite's own."""
        return await self._stack.enter_async_context(connected(target))

    async def scripted(self, script: Script, options: Sequence[tuple[str, Any]] = ()) -> str:
        """Serve a script; return its address."""
        return await self._stack.enter_async_context(scripted(script, options=options))

    async def proxy(self, target: str, **bounds: Any) -> Proxy:
        """Start a proxy to an address that cuts connections after random numbers of bytes within `bounds`."""
        return await self._stack.enter_async_context(Proxy(target, self.random, **bounds))

    async def pause(self, seconds: float) -> None:
        """Let time pass where the passing of time is what the client has to survive."""
        await asyncio.sleep(seconds)

    async def concurrently(self, *parts: Any) -> None:
        """Run parts of a case at once; the first error is the case's."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for part in parts:
                    tasks.create_task(part)
        except ExceptionGroup as group:
            violations = [error for error in group.exceptions if isinstance(error, Violation)]
            raise (violations or group.exceptions)[0] from None
