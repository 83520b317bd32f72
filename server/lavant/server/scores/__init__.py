"""Scores of runs: recorded in logs, read from there into an index of their own, added up, and watched over."""
