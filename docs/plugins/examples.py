"""Extension of Griffe that shows the examples of docstrings as code."""

import re
import textwrap
from typing import Any

import griffe

_EXAMPLE = re.compile(r"^Example:\n((?: +\S.*(?:\n|\Z)|\n)+)", re.MULTILINE)


class Examples(griffe.Extension):
    """Turns each `Example:` of a docstring into a block of Python."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of an object."""
        if obj.docstring:
            obj.docstring.value = _EXAMPLE.sub(_fenced, obj.docstring.value)


def _fenced(example: re.Match[str]) -> str:
    return f"```python\n{textwrap.dedent(example[1]).rstrip()}\n```\n"
