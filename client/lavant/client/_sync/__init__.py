# Generated from _async/__init__.py by client/unasync.py: change that file instead.
"""Implementation of the client, for blocking code."""
