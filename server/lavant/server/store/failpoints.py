"""Places at which a test may kill the process, to see that nothing is lost there."""

import os
import signal
from itertools import count

_name, _, _hit = os.environ.get("LAVANT_FAILPOINT", "").partition(":")
_hits = count(1)


def failpoint(name: str) -> None:
    """Kill the process with SIGKILL if LAVANT_FAILPOINT names this place.

    `name:3` dies at the third time that the place is reached.
    """
    if name == _name and next(_hits) >= int(_hit or 1):
        os.kill(os.getpid(), signal.SIGKILL)
