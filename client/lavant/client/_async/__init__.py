"""Implementation of the client, for asyncio."""
