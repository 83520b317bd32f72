"""The client, in asyncio. Everything but `concurrency` reads the same in both flavours."""
