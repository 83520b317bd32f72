"""Wrong clients: the Python client with one mistake each, and the cases that must find it."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mutant:
    """A mistake: `patch` makes it, and at least one of `cases` finds it."""

    patch: Callable[[], None]
    cases: tuple[str, ...]


MUTANTS: dict[str, Mutant] = {}
