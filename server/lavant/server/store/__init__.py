"""Store of runs: the port, the rules that all engines share, and the engines."""
