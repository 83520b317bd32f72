"""The store: one small port, the rules that all engines share, and the engines."""
