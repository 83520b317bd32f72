"""Adapters for agent frameworks, one module each; import the one you need."""
