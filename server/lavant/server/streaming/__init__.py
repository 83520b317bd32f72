"""Streams of events: live delivery, positions, leases and frames."""
