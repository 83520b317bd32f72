"""The distributed engine: runs in streams of NATS JetStream, which many replicas share."""

from lavant.server.store.jetstream.access import Access
from lavant.server.store.jetstream.connection import Connection, Unanswered
from lavant.server.store.jetstream.engine import JetStreamEngine
from lavant.server.store.jetstream.location import Location
from lavant.server.store.jetstream.setup import Limits, StoreUnusable, examine, prepare

__all__ = [
    "Access",
    "Connection",
    "JetStreamEngine",
    "Limits",
    "Location",
    "StoreUnusable",
    "Unanswered",
    "examine",
    "prepare",
]
