"""Addresses that alerts may be posted to."""

import re
from collections.abc import Iterable
from urllib.parse import unquote, urlsplit

_STRANGE = re.compile(r"[^\x21-\x7e]|\\")


def allowed(url: str, prefixes: Iterable[str]) -> bool:
    """Return whether an address begins with one of the prefixes, and stays below it however a client parses it."""
    return _is_plain(url) and any(url.startswith(prefix) for prefix in prefixes)


def is_prefix(text: str) -> bool:
    """Return whether a text can be a prefix: http or https, a host, and a path, which ends the host's name."""
    return _is_plain(text) and text.endswith("/") and not urlsplit(text).query


def _is_plain(url: str) -> bool:
    if _STRANGE.search(url):
        return False
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return False
    dots = any(segment in {".", ".."} for segment in unquote(parts.path).replace("\\", "/").split("/"))
    return (
        parts.scheme in {"http", "https"}
        and bool(parts.hostname)
        and parts.path.startswith("/")
        and "@" not in parts.netloc
        and not parts.fragment
        and not dots
    )
