"""What a producer may be told."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from lavant.client._arguments import check_optional_seconds, check_seconds, choose
from lavant.client._ids import new_id
from lavant.contract.text import is_id

_log = logging.getLogger("lavant.client")

OnError = Literal["raise", "log"]
MAX_PRODUCER_ID = 96  # characters: the ids of events begin with it
CLOSE_TIMEOUT, STRICT_CLOSE_TIMEOUT = 2.0, 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProducerOptions:
    """How much a producer holds, in bytes, and how long it waits, in seconds.

    `block_timeout` is how long one method waits for room in a full queue, `close_timeout` how long the
    block's end waits until all is durable: by default 2 seconds with `on_error="log"`, 30 with "raise".
    With "log", neither waits while the server is known to be out of reach. What is not durable when the
    block is left is still sent while the client is open. `clock` gives the time of events, in nanoseconds.

    Example:
        patient = ProducerOptions(queue_bytes=64 << 20, block_timeout=30, close_timeout=120)
        async with client.runs.start("agent", options=patient) as run:
            await run.text("It is cold.")
    """

    queue_bytes: int = 8 << 20
    block_timeout: float = 5.0
    close_timeout: float | None = None
    producer_id: str = field(default_factory=new_id)
    producer_epoch: int = 1
    clock: Callable[[], int] = time.time_ns

    def __post_init__(self) -> None:
        for name, whole, least in (("queue_bytes", self.queue_bytes, 1), ("producer_epoch", self.producer_epoch, 0)):
            if not isinstance(whole, int) or not least <= whole < 1 << 63:
                raise ValueError(f"{name} must be a whole number from {least}, not {whole!r}")
        check_seconds("block_timeout", self.block_timeout)
        check_optional_seconds("close_timeout", self.close_timeout)
        if not is_id(self.producer_id) or len(self.producer_id) > MAX_PRODUCER_ID:
            raise ValueError(
                f"producer_id must have 1 to {MAX_PRODUCER_ID} printable characters, not {self.producer_id!r}"
            )

    def close_seconds(self, *, raises: bool) -> float:
        """Return how long the block's end waits, by `on_error`."""
        if self.close_timeout is not None:
            return self.close_timeout
        return STRICT_CLOSE_TIMEOUT if raises else CLOSE_TIMEOUT


def check_options(options: object, on_error: OnError) -> ProducerOptions:
    """Return the options, or the default ones for None. What is something else raises TypeError, or is logged."""
    if isinstance(options, ProducerOptions):
        return options
    if options is not None:
        message = f"options must be ProducerOptions, not {type(options).__name__}"
        if on_error == "raise":
            raise TypeError(message)
        _log.warning("%s: the default ones are used", message)
    return ProducerOptions()


def check_on_error(value: OnError) -> OnError:
    """Return the argument. Raises ValueError for another one."""
    allowed: dict[str, OnError] = {"raise": "raise", "log": "log"}
    return choose("on_error", value, allowed)
