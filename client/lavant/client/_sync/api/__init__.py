# Generated from _async/api/__init__.py by client/unasync.py: change that file instead.
"""The calls of a client, by what they are about: runs, rules, scores, evaluations."""
