"""Runs an evaluation of 200 cases, three times each, and notes each case that it runs: to be killed, or stopped.

Ends with status 3, and says why, where another process has taken it over.
"""

import asyncio
import sys
from pathlib import Path

from pydantic_evals import Case, Dataset
from pydantic_evals.evaluators import EqualsExpected

from lavant.client import AsyncClient, ProducerFenced


async def main(target: str, ran: Path) -> None:
    cases = [Case(name=f"case-{number}", inputs=f"case-{number}", expected_output=number) for number in range(200)]
    with ran.open("a") as notes:

        async def task(inputs: str) -> int:
            notes.write(f"{inputs}\n")
            notes.flush()
            await asyncio.sleep(0)
            return int(inputs.removeprefix("case-"))

        async with AsyncClient(target) as client:
            dataset = Dataset(name="many", cases=cases, evaluators=[EqualsExpected()])
            await client.evaluations.run(dataset, task, iterations=3, evaluation_id="killed", max_concurrency=4)


if __name__ == "__main__":
    try:
        asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
    except ProducerFenced as fenced:
        print(fenced)
        raise SystemExit(3) from None
