"""What a tool's stub is told of its call."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class StubCall:
    """Which call of a tool a stub answers; a stub gets it in a parameter that is annotated with this class.

    `case` is the dataset's own, `iteration` counts from 1, `index` the calls of this tool in that row, from 0.

    Example:
        def search_web(q: str, call: StubCall) -> str:
            return f"{q}: {call.case.metadata}" if call.index == 0 else "nothing more"


        assert search_web("Oslo", StubCall(case=None, iteration=1, index=1)) == "nothing more"
    """

    case: Any
    iteration: int
    index: int
