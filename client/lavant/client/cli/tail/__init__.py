"""The command `lavant tail`."""
