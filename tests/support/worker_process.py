"""A worker that evaluates the samples of the rule `quality`, to be killed. Prints a line for each run that is done."""

import asyncio
import sys

from lavant.client import AsyncClient
from support.sampled import RULE, Cold, Length


async def main(target: str) -> None:
    async with AsyncClient(target) as client:
        await client.evaluations.process_stream(
            RULE,
            evaluators=[Cold(), Length()],
            lease=1,
            until_caught_up=True,
            on_evaluated=lambda judged: print(judged.run.id, flush=True),
        )
    print("done", flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
