"""File descriptors of the process, which connections must not exhaust."""

import resource

import structlog

_log = structlog.get_logger(__name__)

_MANY = 65_536
_RESERVED = 512  # descriptors for the store, the admin listener, webhooks and libraries


def connection_limit(wanted: int, listeners: int) -> int:
    """Return how many connections each of some listeners may have, so that descriptors are left for everything else.

    Raises the process's own limit of open files as far as the system allows; returns fewer than `wanted` and logs it
    if that is not enough.
    """
    needed = _RESERVED + wanted * listeners
    soft = _raise_open_files(needed)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    limit = max(1, (soft - _RESERVED) // listeners)
    _log.debug("connections_limited_by_open_files", max_connections=wanted, limit=limit, open_files=soft, needed=needed)
    return limit


def _raise_open_files(needed: int) -> int:
    """Raise the limit of open files as far as the system allows; return the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return soft
    raised = _MANY if hard == resource.RLIM_INFINITY else min(max(needed, _MANY), hard)  # spare for TLS handshakes
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
    except (ValueError, OSError):  # macOS has a lower limit of its own than it reports
        return soft
    return raised
