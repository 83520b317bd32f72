"""Index of all scores: a database of each process, read from the logs that scores are recorded in."""
