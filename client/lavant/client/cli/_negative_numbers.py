"""Negative numbers as arguments of commands."""

import re
from typing import Any

from typer.core import TyperCommand
from typing_extensions import override

_NEGATIVE = re.compile(r"-(?:\d|\.\d|inf|nan).*", re.IGNORECASE)


class TakesNegativeNumbers(TyperCommand):
    """A command whose arguments may be negative numbers: `-3` is none of its options."""

    @override
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the command line; what looks like an option and is none stays an argument if there is such a number."""
        ctx.ignore_unknown_options = any(map(_NEGATIVE.fullmatch, args))
        return super().parse_args(ctx, args)
