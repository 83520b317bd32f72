"""The demo's server: a process of its own, so that it can be killed."""

import asyncio
import sys
from pathlib import Path

START_TIMEOUT = 20.0


class ServerProcess:
    """`python -m lavant.server` on a store of its own; restarted, it keeps its port and its store."""

    def __init__(self, folder: Path) -> None:
        self.target = ""
        self._folder = folder
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it, and wait until it serves."""
        arguments = ["--listen", self.target or "127.0.0.1:0", "--http", "off"]
        arguments += ["--store", f"sqlite:///{self._folder / 'lavant.db'}"]
        with (self._folder / "server.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "lavant.server", *arguments, stdout=asyncio.subprocess.PIPE, stderr=log
            )
        self.target = await asyncio.wait_for(self._read_address(self._process), START_TIMEOUT)

    async def kill(self) -> None:
        """Kill it with SIGKILL: no warning, no time to clean up."""
        await self._end(kill=True)

    async def stop(self) -> None:
        """Ask it to stop, and wait until it has."""
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
