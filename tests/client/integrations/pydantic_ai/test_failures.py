"""Requests to models that fail, as steps of recorded agents of pydantic-ai."""

import asyncio

import pytest
from pydantic_ai import Agent, ModelRetry, RunContext
from pydantic_ai.capabilities import AbstractCapability
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.messages import ModelResponse, TextPart
from pydantic_ai.models import ModelRequestContext
from pydantic_ai.models.fallback import FallbackModel
from pydantic_ai.models.test import TestModel

from lavant.client import AsyncClient, Recording, RunState, StepKind
from lavant.client.integrations.pydantic_ai import LavantCapability
from support.pydantic_ai import RateLimited, call, scripted, whole


class Listening(AbstractCapability[None]):
    """Has the agent's loop stream."""

    async def on_event(self, ctx: RunContext[None], *, event: object) -> None:
        pass


class Recovering(AbstractCapability[None]):
    """Answers for a model that fails."""

    async def on_model_request_error(
        self, ctx: RunContext[None], *, request_context: ModelRequestContext, error: Exception
    ) -> ModelResponse:
        return ModelResponse([TextPart("recovered")])


async def read(client: AsyncClient, run_id: str = "r") -> Recording:
    return await client.runs.stream(run_id).collect(raise_for_state=False)


@pytest.mark.parametrize("said", [[], ["half "]], ids=["at once", "half-way"])
@pytest.mark.parametrize("others", [[], [Listening()]], ids=["whole", "streamed"])
@pytest.mark.parametrize("turn", [1, 2])
async def test_a_failed_request_is_a_failed_step_with_the_providers_error(
    client: AsyncClient, said: list[str], others: list[AbstractCapability[None]], turn: int
) -> None:
    failing = [*said, ConnectionError("reset by peer")]
    turns = [failing] if turn == 1 else [["I look.", call(0, "look")], failing]
    agent = Agent(scripted(*turns), deps_type=type(None))

    @agent.tool_plain
    def look() -> str:
        return "cold"

    with pytest.raises(ConnectionError, match="reset by peer"):
        await agent.run("go", deps=None, capabilities=[LavantCapability(client, run_id="r"), *others])
    recording = await read(client)
    assert recording.result.state is RunState.FAILED
    assert recording.result.error is not None
    assert (recording.result.error.message, recording.result.error.type) == ("reset by peer", "ConnectionError")
    failed = recording.steps[-1]
    assert (failed.kind, failed.state, failed.text) == (StepKind.MODEL_REQUEST, RunState.FAILED, "".join(said))
    assert failed.error is not None
    assert (failed.error.message, failed.error.type) == ("reset by peer", "ConnectionError")
    assert all(event.type != "message_started" for event in recording.events[-2:])


async def test_a_refused_request_reports_the_providers_status(client: AsyncClient) -> None:
    agent = Agent(RateLimited(scripted()), capabilities=[LavantCapability(client, run_id="r")])
    with pytest.raises(ModelHTTPError):
        await agent.run("go")
    recording = await read(client)
    assert recording.steps[0].error is not None
    assert recording.steps[0].error == recording.result.error
    assert "rate limited" in recording.steps[0].error.message
    assert recording.steps[0].error.type == "pydantic_ai.exceptions.ModelHTTPError"
    assert (recording.steps[0].error.details, recording.steps[0].error.retryable) == ({"status_code": 429}, True)


async def test_recovery_from_a_failed_request_works_as_without_a_recorder(client: AsyncClient) -> None:
    agent = Agent(scripted(["half ", ConnectionError("reset")]), deps_type=type(None), capabilities=[Recovering()])
    recorded = [LavantCapability[None](client, run_id="r")]
    assert (await agent.run("go", deps=None, capabilities=recorded)).output == "recovered"
    recording = await read(client)
    assert (recording.result.state, recording.text) == (RunState.SUCCEEDED, "recovered")
    (step,) = recording.steps
    assert (step.attempt, step.state, step.text) == (2, RunState.SUCCEEDED, "recovered")


async def test_a_fallback_takes_over_also_from_a_model_that_fails_half_way(client: AsyncClient) -> None:
    fallback = FallbackModel(
        RateLimited(scripted()),
        scripted(["half ", ConnectionError("reset")]),
        whole("whole"),
        fallback_on=(ModelHTTPError, ConnectionError),
    )
    agent = Agent(fallback, capabilities=[LavantCapability(client, run_id="r")])
    assert (await agent.run("go")).output == "whole"
    recording = await read(client)
    assert (recording.result.state, recording.text) == (RunState.SUCCEEDED, "whole")
    ended = [
        (event.data.state, event.data.error and event.data.error.message[:16])
        for event in recording.events
        if event.type == "step_finished"
    ]
    assert [message for _, message in ended] == ["status_code: 429", "reset", None]
    (step,) = recording.steps
    assert (step.attempt, step.state) == (3, RunState.SUCCEEDED)


async def test_a_response_that_is_refused_counts_once_with_its_usage(client: AsyncClient) -> None:
    class Picky(AbstractCapability[None]):
        async def after_model_request(
            self, ctx: RunContext[None], *, request_context: ModelRequestContext, response: ModelResponse
        ) -> ModelResponse:
            if ctx.run_step == 1:
                raise ModelRetry("not so")
            return response

    agent = Agent(scripted(["no"], ["yes"]), deps_type=type(None), capabilities=[Picky()], retries=1)
    result = await agent.run("go", deps=None, capabilities=[LavantCapability(client, run_id="r")])
    recording = await read(client)
    assert [step.state for step in recording.steps] == [RunState.FAILED, RunState.SUCCEEDED]
    assert recording.usage.total_tokens == result.usage.total_tokens
    assert recording.usage.requests == 2


async def test_a_cancelled_request_is_a_cancelled_step(client: AsyncClient) -> None:
    class Waiting(AbstractCapability[None]):
        async def before_model_request(
            self, ctx: RunContext[None], request_context: ModelRequestContext
        ) -> ModelRequestContext:
            asked.set()
            await asyncio.Event().wait()
            return request_context

    asked = asyncio.Event()
    agent = Agent(TestModel(), deps_type=type(None), capabilities=[Waiting()])
    running = asyncio.create_task(agent.run("go", deps=None, capabilities=[LavantCapability(client, run_id="r")]))
    await asked.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    recording = await read(client)
    assert (recording.result.state, recording.steps[0].state) == (RunState.CANCELLED, RunState.CANCELLED)
