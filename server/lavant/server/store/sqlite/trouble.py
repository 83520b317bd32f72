"""Trouble with writing that the store outlives: logged when it begins and when it ends, not with every append."""

import logging

from lavant.server.store.sqlite.faults import is_full

logger = logging.getLogger(__name__)


class Trouble:
    """Whether groups of changes are written or refused, as far as the last ones tell."""

    def __init__(self) -> None:
        self._refused = 0  # bytes of the smallest group that was refused since the trouble began; 0: there is none

    def refused(self, error: Exception, size: int) -> None:
        """Take note of a group that could not be written."""
        if not self._refused:
            what = "has no room left" if is_full(error) else "cannot be written"
            logger.error("the store %s: appends are refused until that changes (%s)", what, error)
        self._refused = min(self._refused or size, size) or 1

    def written(self, size: int) -> None:
        """Take note of a group that was written; one smaller than what was refused may just have fitted."""
        if self._refused and size >= self._refused:
            self._refused = 0
            logger.warning("the store can be written again")
