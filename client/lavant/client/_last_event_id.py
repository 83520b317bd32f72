"""Where a browser's reader was: the ids of server-sent events."""

import re
from dataclasses import dataclass

from lavant.client._errors import ResumeTokenInvalid

_ID = re.compile(r"([^~]+)(?:~(0|[1-9][0-9]{0,17})(?:~([A-Za-z0-9-]{0,64}))?(~end)?)?")


@dataclass(frozen=True, slots=True)
class LastEventId:
    """A server's token, the last sequence that was handed out (0: all up to the token), and the reader's session.

    Written `TOKEN~SEQUENCE~SESSION`, with `~end` where to read on is no use. A reader that comes back with its session
    is known to be the same, and takes its own place over, however dead its earlier connection is.
    """

    token: str = ""
    sequence: int = 0
    session_id: str = ""
    is_final: bool = False

    @classmethod
    def parse(cls, text: str) -> "LastEventId":
        """Read an id, or a stream's resume token. Raises ResumeTokenInvalid for what is neither."""
        if not text:
            return cls()
        found = _ID.fullmatch(text)
        if found is None:
            raise ResumeTokenInvalid("the resume token cannot be used: it is damaged; read from the start")
        token, sequence, session_id, final = found.groups()
        return cls(token, int(sequence or 0), session_id or "", final is not None)
