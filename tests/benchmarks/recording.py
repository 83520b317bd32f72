"""Tokens of a pydantic-ai agent, recorded and not recorded."""

from collections.abc import AsyncIterator

from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage
from pydantic_ai.models.function import AgentInfo, FunctionModel

from benchmarks.kit.report import Aim, Table
from benchmarks.kit.rounds import CLIENT_CPU, SERVER_CPU, Bench, Figures, Meter
from benchmarks.peers.lavant import serve
from lavant.client import AsyncClient
from lavant.client.integrations.pydantic_ai import LavantCapability


async def run(bench: Bench) -> list[Table]:
    """Measure an agent that receives its tokens as fast as it takes them, from a model without work of its own."""
    tokens = bench.size(5_000, quick=1_000)

    async def answer(messages: list[ModelMessage], info: AgentInfo) -> AsyncIterator[str]:
        for _ in range(tokens):
            yield "token "

    async with serve(bench.subfolder("lavant")) as server, AsyncClient(server.address) as client:

        async def measure(*, recorded: bool) -> Figures:
            agent = Agent(FunctionModel(stream_function=answer), capabilities=[LavantCapability(client)] * recorded)
            with Meter(server) as meter:
                async with agent.run_stream_events("How is it in Oslo?") as events:
                    async for _ in events:
                        pass
                await client.flush()
            return meter.figures("tokens", tokens)

        measured = await bench.interleaved(
            {
                "lavant": lambda _: measure(recorded=True),
                "not recorded": lambda _: measure(recorded=False),
            }
        )
    return [
        Table(
            name="recording",
            title=f"{tokens:,} tokens of a pydantic-ai agent, recorded",
            measured=measured,
            aims=[
                Aim(unit=CLIENT_CPU, beside="not recorded", beyond=True, at_most=40),
                Aim(unit=SERVER_CPU, at_most=40),
            ],
            recorded=[CLIENT_CPU],
            baseline="not recorded",
        )
    ]
