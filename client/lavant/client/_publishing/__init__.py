"""Building, checking and queueing of a producer's events."""
