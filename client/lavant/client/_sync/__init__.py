# Made from _async/__init__.py by client/unasync.py: change that one.
"""The client, in asyncio. Everything but `concurrency` reads the same in both flavours."""
