"""Records the OpenAI Agents SDK: `LavantRunner(client)` stands in for its `Runner`.

Needs `pip install 'lavant[openai-agents]'`.
"""

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from typing_extensions import Unpack, override

from lavant.client import AsyncClient, AsyncRunProducer, ProducerOptions, _scope
from lavant.client._options import OnError
from lavant.client.integrations._extras import extra

with extra("openai-agents"):
    from agents import (
        Agent,
        AgentToolStreamEvent,
        Runner,
        RunResult,
        RunResultStreaming,
        RunState,
        TContext,
        TResponseInputItem,
    )
    from agents.run import RunOptions

from lavant.client.integrations._openai_agents_hooks import Place, RecordingHooks, model_name, place
from lavant.client.integrations._openai_agents_recorder import RunRecorder
from lavant.client.integrations._openai_agents_recording import Recording, configured_model

_log = logging.getLogger("lavant.client")


class LavantRunner:
    """Runs agents as `agents.Runner` does, and publishes each run as a run of lavant's.

    Within a block of `client.runs.start`, or within a tool of an agent that is recorded itself, the agents become
    steps of that run instead. Each agent is a step: after a handoff the next one's is beside the first one's. In it,
    each request to a model is a step with one message, each tool call a step too. An agent that is a tool of
    another one is recorded in the tool's step if it is given hooks: `agent.as_tool(..., hooks=LavantHooks())`.

    Text comes as deltas from `run_streamed`, as soon as the application reads them from the stream; else whole.
    CancelRun cancels the agent, and raises RunCancelled. The agent never waits for the network while it works, only at
    its beginning (until the run is created) and at its end (until all is durable). Unless `on_error` is "raise", what
    cannot be recorded never fails it. One runner serves any number of runs at a time.

    A run that waits for approvals ends well; it is resumed as a run of its own. Not recorded: tools that the model's
    provider runs. Of a tool with a `failure_error_function` of its own, a failure is known only while the SDK traces.

    Example:
        agent = Agent("weather-agent", model=model)
        await LavantRunner(client, labels={"team": "weather"}).run(agent, "How is it in Oslo?")
        run = await anext(client.runs.list(labels={"team": "weather"}))
        assert await client.runs.stream(run.id).text() == "It is cold."
    """

    def __init__(
        self,
        client: AsyncClient,
        *,
        name: str | None = None,
        labels: Mapping[str, str] | None = None,
        producer_timeout: float | None = 60.0,
        on_error: OnError = "log",
        options: ProducerOptions | None = None,
    ) -> None:
        self._client = client
        self._name = name
        self._labels = labels
        self._producer_timeout = producer_timeout
        self._on_error: OnError = on_error
        self._options = options

    async def run(
        self,
        starting_agent: Agent[TContext],
        input: str | list[TResponseInputItem] | RunState[TContext],  # noqa: A002
        **options: Unpack[RunOptions[TContext]],
    ) -> RunResult:
        """Run an agent to its end. Options are those of `Runner.run`."""
        async with self._recording(starting_agent, input, options) as recording:
            if recording is None:
                return await Runner.run(starting_agent, input, **options)
            result = await recording.work(Runner.run(starting_agent, input, **recording.options))
            recording.output = result.final_output
            return result

    @asynccontextmanager
    async def run_streamed(
        self,
        starting_agent: Agent[TContext],
        input: str | list[TResponseInputItem] | RunState[TContext],  # noqa: A002
        **options: Unpack[RunOptions[TContext]],
    ) -> AsyncIterator[RunResultStreaming]:
        """Run an agent for the length of a block: `async with runner.run_streamed(...) as streamed`.

        Read `streamed.stream_events()` in it. Leaving the block cancels what is still at work.
        """
        unraised: BaseException | None = None
        try:
            async with self._recording(starting_agent, input, options) as recording:
                if recording is None:
                    yield Runner.run_streamed(starting_agent, input, **options)
                    return
                streamed = Runner.run_streamed(starting_agent, input, **recording.options)
                async with recording.stream(streamed):
                    yield streamed
                if unraised := recording.failure(streamed):
                    raise unraised
        except BaseException as error:
            # What the block did not raise, for the application ignored it, is only recorded.
            if error is not unraised:
                raise

    @asynccontextmanager
    async def _recording(
        self, agent: Agent[Any], given: str | list[TResponseInputItem] | RunState[Any], options: RunOptions[Any]
    ) -> AsyncIterator[Recording | None]:
        shown = None if isinstance(given, RunState) else given
        strict = self._on_error == "raise"
        outer = _scope.current_run()
        if isinstance(outer, AsyncRunProducer):
            with Recording(outer, _scope.current_step(outer), options, strict=strict) as recording:
                recording.begin(agent, shown)
                yield recording
            return
        if not isinstance(self._client, AsyncClient):
            message = f"LavantRunner needs an AsyncClient, not {type(self._client).__name__}"
            if strict:
                raise TypeError(message)
            _log.warning("the agent is not recorded: %s", message)
            yield None
            return
        async with self._client.runs.start(
            self._name or agent.name,
            input=shown,
            labels=self._labels,
            conversation_id=_conversation(options),
            producer_timeout=self._producer_timeout,
            model=model_name(agent, configured_model(options)),
            on_error=self._on_error,
            options=self._options,
        ) as run:
            with Recording(run, "", options, strict=strict) as recording:
                recording.begin(agent, None)
                yield recording
            run.output = recording.output


class LavantHooks(RecordingHooks):
    """Records an agent that runs within one that a LavantRunner runs; elsewhere, nothing.

    For an agent that is a tool: `agent.as_tool(..., hooks=LavantHooks())`, and with `on_stream=hooks.on_stream` its
    text comes as deltas. For one that a tool's code runs: `Runner.run(agent, ..., hooks=LavantHooks())`.

    Example:
        forecaster = Agent("forecaster", model=model)
        tool = forecaster.as_tool("forecast", "Tells the weather.", hooks=LavantHooks())
        agent = Agent("weather-agent", model=calling_model, tools=[tool])
        await LavantRunner(client).run(agent, "How is it in Oslo?")
        run = await anext(client.runs.list())
        assert "forecaster" in [step.name async for step in client.runs.stream(run.id).steps]
    """

    @override
    def find(self, agent: Agent[Any], context: object = None) -> Place | None:
        """Return the place of the run that an agent is at work in."""
        at = place.get()
        if at is None or context is not None:
            return at and at.run_within(context)
        return at if at.recorder.agent is agent else None

    @override
    def end_agent(self, recorder: RunRecorder, output: object) -> None:
        """Record that the run is over."""
        recorder.finish(output)

    def on_stream(self, streamed: AgentToolStreamEvent) -> None:
        """Record what an agent that is a tool streams."""
        event, at = streamed["event"], place.get()
        if event.type == "raw_response_event" and at and at.tool and at.tool.inner:
            replace(at, recorder=at.tool.inner[-1]).record(partial(RunRecorder.stream, event=event.data))


def _conversation(options: RunOptions[Any]) -> str:
    session = options.get("session")
    return options.get("conversation_id") or (session.session_id if session else "") or ""
