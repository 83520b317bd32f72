"""Reads what frameworks report, of whatever shape: what is absent, odd or wrong counts as nothing."""

from collections.abc import Iterator

_MAX = 1 << 53


def count(value: object) -> int:
    """Return a number of tokens; 0 for what is none."""
    kind = type(value)
    if kind is float and 0 <= value < _MAX:  # type: ignore[operator]
        return int(value)  # type: ignore[call-overload, no-any-return]
    return value if kind is int and 0 <= value < _MAX else 0  # type: ignore[operator, return-value]


def field(counted: object, *names: str) -> object:
    """Return the first of these entries of a dict or attributes of an object that is there and not None."""
    for name in names:
        try:
            value = counted.get(name) if issubclass(type(counted), dict) else getattr(counted, name, None)  # type: ignore[attr-defined]
        except Exception:
            value = None
        if value is not None:
            return value
    return None


def items(holder: object, *names: str) -> Iterator[object]:
    """Return the items of the lists under these names of a dict or an object; those that are no lists have none."""
    for name in names:
        found = field(holder, name)
        if issubclass(type(found), list):
            yield from list.__iter__(found)  # type: ignore[arg-type]
