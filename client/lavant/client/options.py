"""Options of a producer."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from lavant.client._wire.arguments import check_optional_seconds, check_seconds, choose
from lavant.client._wire.ids import new_id
from lavant.contract.text import is_id

_log = logging.getLogger("lavant.client")

OnError = Literal["raise", "log"]
MAX_PRODUCER_ID = 96  # characters: the ids of events begin with it
CLOSE_TIMEOUT, STRICT_CLOSE_TIMEOUT = 2.0, 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProducerOptions:
    """Limits and identity of a run's producer.

    `queue_bytes` is the size of the outbox, default 8 MiB. `block_timeout` is how long a method waits while it is full,
    default 5 seconds; `close_timeout` is how long the end of the block waits until all events are durable, default 2
    seconds with `on_error="log"` and 30 with "raise". With "log", neither waits while the server is known to be
    unreachable. Events that are not durable at the end of the block are sent as long as the client is open.

    `producer_id` is generated unless given: 1 to 96 printable characters. A process that continues a run of another one
    uses its `producer_id` with a higher `producer_epoch`, which fences the other one. `clock` returns the time of
    events in nanoseconds since 1970. Raises ValueError or TypeError for values out of bounds.

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
        """Return how long the end of the block waits, in seconds."""
        if self.close_timeout is not None:
            return self.close_timeout
        return STRICT_CLOSE_TIMEOUT if raises else CLOSE_TIMEOUT


def check_options(options: object, on_error: OnError) -> ProducerOptions:
    """Return the options, or the defaults for None.

    Other types raise TypeError, or are logged with `on_error="log"`.
    """
    if isinstance(options, ProducerOptions):
        return options
    if options is not None:
        message = f"options must be ProducerOptions, not {type(options).__name__}"
        if on_error == "raise":
            raise TypeError(message)
        _log.warning("%s: the default ones are used", message)
    return ProducerOptions()


def check_on_error(value: OnError) -> OnError:
    """Return the argument. Raises ValueError unless it is "raise" or "log"."""
    allowed: dict[str, OnError] = {"raise": "raise", "log": "log"}
    return choose("on_error", value, allowed)
