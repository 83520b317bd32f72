"""A worker that judges what the rule `quality` draws, to be killed. Says a line for each run that it has judged."""

import asyncio
import sys

from client.sampled import RULE, Cold, Length
from lavant.client import AsyncClient


async def main(target: str) -> None:
    async with AsyncClient(target) as client:
        await client.evaluations.process_stream(
            RULE,
            evaluators=[Cold(), Length()],
            lease=1,
            until_caught_up=True,
            on_judged=lambda judged: print(judged.run.id, flush=True),
        )
    print("done", flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
