"""Identifiers that the client generates."""

import os
import socket
import time


def new_id(time_ns: int | None = None) -> str:
    """Return a new UUIDv7, RFC 9562: sorts by time, unique without coordination."""
    milliseconds = (time.time_ns() if time_ns is None else time_ns) // 1_000_000
    value = milliseconds << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF000 << 64) | 0x7000 << 64
    value = value & ~(0xC000 << 48) | 0x8000 << 48
    digits = f"{value:032x}"  # as uuid.UUID writes it, which takes three times as long
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def new_name() -> str:
    """Return a unique name of this process for people: host, process id, random."""
    return f"{socket.gethostname()[:64]}-{os.getpid()}-{new_id()[-6:]}"
