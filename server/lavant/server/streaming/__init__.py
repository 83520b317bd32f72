"""Streams of events: positions, places, tails and the frames that go out."""
