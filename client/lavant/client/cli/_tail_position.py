"""Where a tail begins."""

from dataclasses import dataclass
from typing import Self

import typer

from lavant.client import ResumeTokenInvalid
from lavant.client._plan import Start, split_token

_FEWEST_OF_A_TOKEN = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """A place in a run's log: by its name, by a resume token, or by the first sequence that is shown."""

    start: Start = "beginning"
    resume_token: str | None = None
    first: int = 1

    @classmethod
    def of(cls, text: str) -> Self:
        """Read what was given on the command line. Raises a usage error for what is none of these."""
        match text:
            case "beginning":
                return cls()
            case "now":
                return cls(start="now")
            case _ if text.isascii() and text.isdecimal() and len(text) < _FEWEST_OF_A_TOKEN:
                return cls(first=int(text))
        try:
            split_token(text)
        except ResumeTokenInvalid as error:
            raise typer.BadParameter(f"--from: {error}") from None
        if len(text) < _FEWEST_OF_A_TOKEN:
            raise typer.BadParameter(f"--from must be beginning, now, a sequence or a resume token, not {text!r}")
        return cls(resume_token=text)

    @property
    def joins_midway(self) -> bool:
        """Whether events before it stay unseen."""
        return self.start == "now" or self.resume_token is not None
