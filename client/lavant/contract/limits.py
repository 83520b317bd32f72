"""Bounds of the contract, each in one place."""

from typing import Final

MAX_BATCH_EVENTS: Final = 1_000
MAX_BATCH_BYTES: Final = 1 << 20
MAX_REQUEST_BATCHES: Final = 256
MAX_REQUEST_BYTES: Final = 4 << 20

# What clients put into an event as one value, such as a tool's result: the rest of the event must fit beside it.
MAX_VALUE_BYTES: Final = 896 << 10

MAX_ID_LENGTH: Final = 128
# Run ids that begin so are the server's own: callers may read them, and no more.
OWN_RUNS: Final = "lavant."
MAX_NAME_LENGTH: Final = 256
MAX_SETTINGS_BYTES: Final = 64 << 10  # of a run
MAX_LABELS: Final = 64
MAX_LABEL_KEY_LENGTH: Final = 128
MAX_LABEL_VALUE_LENGTH: Final = 1_024

# Steps, messages, tool calls or inputs that one run may have open at once.
MAX_OPEN: Final = 2_000
# UTF-8 bytes of the IDs of all of these together: the server keeps them in memory, and stores them with every batch.
MAX_OPEN_BYTES: Final = 128 << 10  # 2,000 steps with the client's own IDs have 72 KiB

# Seconds: what google.protobuf.Duration may hold, and the first and last second of google.protobuf.Timestamp.
MAX_DURATION: Final = 315_576_000_000
YEAR_1: Final = -62_135_596_800
YEAR_9999: Final = 253_402_300_799
NANOS: Final = 1_000_000_000

# What clients write. Readers take about twice as much: see `lavant.contract.values.is_json`.
MAX_JSON_DEPTH: Final = 100
MAX_JSON_DIGITS: Final = 4_300
