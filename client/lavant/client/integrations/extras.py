"""Extras that the integrations need: what an import says where one is not installed."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Import what an extra brings; raise an ImportError that names the extra if that is not installed.

    Example:
        with extra("pydantic-ai"):
            import pydantic_ai
    """
    try:
        yield
    except ImportError as error:
        missing = error.name or "a package"
        raise ImportError(f"{missing} is missing or too old: pip install 'lavant[{name}]'", name=error.name) from error
