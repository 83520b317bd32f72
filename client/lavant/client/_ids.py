"""Identifiers that this side mints."""

import os
import socket
import time
import uuid


def new_id(time_ns: int | None = None) -> str:
    """Return a new UUIDv7, RFC 9562: sorts by time, unique without coordination."""
    milliseconds = (time.time_ns() if time_ns is None else time_ns) // 1_000_000
    value = milliseconds << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF000 << 64) | 0x7000 << 64
    value = value & ~(0xC000 << 48) | 0x8000 << 48
    return str(uuid.UUID(int=value))


def new_name() -> str:
    """Return a name for this process that tells people where it is, and is nobody else's: host, pid, random."""
    return f"{socket.gethostname()[:64]}-{os.getpid()}-{new_id()[-6:]}"
