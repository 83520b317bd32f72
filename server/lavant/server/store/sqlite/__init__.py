"""Embedded engine: one SQLite file, owned by one process."""

from lavant.server.store.sqlite.engine import SQLiteEngine
from lavant.server.store.sqlite.schema import StoreDamaged, StoreLocked, StoreMoved, StoreUnusable

__all__ = ["SQLiteEngine", "StoreDamaged", "StoreLocked", "StoreMoved", "StoreUnusable"]
