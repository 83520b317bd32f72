"""Values that are derived from a run's events."""
