"""Failpoints: named points at which a test kills the process, to verify that nothing is lost."""

import os
import signal
from itertools import count

_name, _, _hit = os.environ.get("LAVANT_FAILPOINT", "").partition(":")
_hits = count(1)


def failpoint(name: str) -> None:
    """Kill the process with SIGKILL if LAVANT_FAILPOINT names this failpoint.

    `name:3` kills it when the failpoint is reached for the third time.
    """
    if name == _name and next(_hits) >= int(_hit or 1):
        os.kill(os.getpid(), signal.SIGKILL)
