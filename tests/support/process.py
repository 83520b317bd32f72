"""Processes that a test stops."""

import os
import signal
import time
from pathlib import Path

_LIMIT = 10.0  # seconds
_PAUSE = 0.001  # seconds


def stop(pid: int) -> None:
    """Stop all threads of a process, and return once none of them runs: the signal alone is asynchronous."""
    os.kill(pid, signal.SIGSTOP)
    give_up_at = time.monotonic() + _LIMIT
    while any(_state(thread) not in "Tt" for thread in Path(f"/proc/{pid}/task").iterdir()):
        if time.monotonic() > give_up_at:
            raise TimeoutError(f"process {pid} does not stop")
        time.sleep(_PAUSE)


def _state(thread: Path) -> str:
    return (thread / "stat").read_text().rpartition(")")[2].split()[0]
