"""Token counts as frameworks report them: absent, odd or wrong ones count nothing."""

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
