"""Scores of runs: recorded in logs, indexed from there, aggregated, and compared with the thresholds of alerts."""
