"""Runs agents as the Agents SDK's own Runner does, and records them."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import Any, Self

from agents import (
    Agent,
    Runner,
    RunResult,
    RunResultStreaming,
    RunState,
    StreamEvent,
    TContext,
    TResponseInputItem,
)
from agents.run import RunOptions as SdkOptions
from typing_extensions import Unpack

from lavant.client import AsyncClient, AsyncRunProducer, ProducerOptions
from lavant.client._publishing import scope as _scope
from lavant.client._publishing.guard import Guard
from lavant.client.integrations.openai_agents.hooks import (
    ActiveRun,
    RunnerHooks,
    active_run,
    configured_model,
    listening_config,
    model_name,
)
from lavant.client.integrations.openai_agents.recorder import RunRecorder
from lavant.client.integrations.recording.runs import (
    CancelOnRequest,
    RunOptions,
    calling_on_cancel,
    check_client,
    guarded_run,
)
from lavant.client.options import OnError, check_on_error


class LavantRunner:
    """Runs agents as `agents.Runner` does, and publishes each run as a run of lavant.

    Within a block of `client.runs.start`, or within a tool of an agent that is recorded itself, the agents become
    steps of that run instead. Each agent is a step: after a handoff the next one's is beside the first one's. In it,
    each request to a model is a step with one message, each tool call a step too. An agent that is a tool of
    another one is recorded in the tool's step if it is given hooks: `agent.as_tool(..., hooks=LavantHooks())`.

    Text comes as deltas from `run_streamed`, as soon as the application reads them from the stream; else whole.
    CancelRun cancels the agent, and raises RunCancelled.

    It never changes what the agents do: results, errors and history are those of `Runner`. They never wait for the
    network while they work, only at the start (until the run is created, with `on_error="raise"`) and at the end
    (until all is durable). Unless `on_error` is "raise", what cannot be recorded is logged and never fails them. One
    runner serves any number of runs at a time.

    A run that waits for approvals ends as SUCCEEDED; it is resumed as a run of its own. Not recorded: tools that the
    model's provider runs. Of a tool with a `failure_error_function` of its own, a failure is known only while the SDK
    traces.

    Raises ValueError for another `on_error`; `run` and `run_streamed` raise TypeError if `client` is no AsyncClient
    and `on_error` is "raise".

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
        self._on_error = check_on_error(on_error)
        self._options = RunOptions(
            labels=labels, producer_timeout=producer_timeout, on_error=self._on_error, options=options
        )

    async def run(
        self,
        starting_agent: Agent[TContext],
        input: str | list[TResponseInputItem] | RunState[TContext],  # noqa: A002
        **options: Unpack[SdkOptions[TContext]],
    ) -> RunResult:
        """Run an agent to its end. Options are those of `Runner.run`."""
        async with self._recording(starting_agent, input, options) as recording:
            if recording is None:
                return await Runner.run(starting_agent, input, **options)
            with CancelOnRequest(recording.run, asyncio.current_task()):
                result = await Runner.run(starting_agent, input, **recording.options)
            recording.output = result.final_output
            return result

    @asynccontextmanager
    async def run_streamed(
        self,
        starting_agent: Agent[TContext],
        input: str | list[TResponseInputItem] | RunState[TContext],  # noqa: A002
        **options: Unpack[SdkOptions[TContext]],
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
            # What the block did not raise, because the application ignored it, is only recorded.
            if error is not unraised:
                raise

    @asynccontextmanager
    async def _recording(
        self, agent: Agent[Any], given: str | list[TResponseInputItem] | RunState[Any], options: SdkOptions[Any]
    ) -> AsyncIterator["_Recording | None"]:
        shown = None if isinstance(given, RunState) else given
        name = self._name or agent.name
        guard = Guard(self._on_error, f"the agent {name}")
        outer = _scope.current_run()
        if isinstance(outer, AsyncRunProducer):
            with _Recording(outer, _scope.current_step(outer), options, guard).active(agent, shown) as recording:
                yield recording
            return

        def make() -> AsyncRunProducer:
            return check_client(self._client, AsyncClient, "LavantRunner").runs.start(
                name,
                input=shown,
                conversation_id=_conversation_id(options),
                model=model_name(agent, configured_model(options)),
                **self._options,
            )

        async with guarded_run(guard, make) as run:
            if run is None:
                yield None
                return
            with _Recording(run, "", options, guard).active(agent, None) as recording:
                yield recording
            run.output = recording.output


class _Recording:
    """One run of the SDK while it is recorded. Set `output` to report it."""

    def __init__(self, run: AsyncRunProducer, outer_step_id: str, options: SdkOptions[Any], guard: Guard) -> None:
        self.output: object = None
        self.run = run
        self._recorder = RunRecorder(run, guard, outer_step_id)
        self._seen: Exception | None = None
        self._active = ActiveRun(run, self._recorder, model=configured_model(options))
        self.options: SdkOptions[Any] = {
            **options,
            "hooks": RunnerHooks(self._active, options.get("hooks")),
            "run_config": listening_config(options.get("run_config")),
        }

    @contextmanager
    def active(self, agent: Agent[Any], given: object) -> Iterator[Self]:
        """Record what is done in the block: from the start of the first agent to the end of the last one."""
        self._active.record(lambda recorder: recorder.start_agent(agent, given))
        token = active_run.set(self._active)
        failure: BaseException | None = None
        try:
            yield self
        except BaseException as error:
            failure = error
            raise
        finally:
            with suppress(ValueError):  # left in another context than it was entered in
                active_run.reset(token)
            try:
                self._active.record(lambda recorder: recorder.finish(self.output, failure))
            except Exception:
                if failure is None:
                    raise

    @asynccontextmanager
    async def stream(self, streamed: RunResultStreaming) -> AsyncIterator[None]:
        """Record what is read from a stream, and cancel what is still at work at the block's end."""
        # The caller gets the SDK's own object, with all that it can do; its method is replaced on this object alone,
        # because the SDK has no hook for what is streamed.
        vars(streamed)["stream_events"] = partial(self._events, streamed, streamed.stream_events)
        with calling_on_cancel(self.run, streamed.cancel):
            try:
                yield
            finally:
                if not streamed.is_complete:
                    streamed.cancel()
                if streamed.run_loop_task is not None:
                    await asyncio.wait((streamed.run_loop_task,))
        self.output = streamed.final_output

    def failure(self, streamed: RunResultStreaming) -> BaseException | None:
        """Return why a streamed run has no output, though nothing was raised. Raises RunCancelled after CancelRun."""
        if error := self._seen or streamed.run_loop_exception:
            return error
        if streamed.interruptions or self._has_output(streamed):
            return None
        self.run.raise_if_cancelled()
        return asyncio.CancelledError("cancelled, or left before its end")

    async def _events(
        self, streamed: RunResultStreaming, events: Callable[[], AsyncIterator[StreamEvent]]
    ) -> AsyncIterator[StreamEvent]:
        async with aclosing(events()) as stream:  # type: ignore[type-var]
            try:
                async for event in stream:
                    if event.type == "raw_response_event":
                        self._active.record(partial(RunRecorder.stream, event=event.data))
                    yield event
            except Exception as error:
                self._seen = error
                raise
        if not self._has_output(streamed):
            self.run.raise_if_cancelled()

    def _has_output(self, streamed: RunResultStreaming) -> bool:
        return self._recorder.has_output or streamed.final_output is not None


def _conversation_id(options: SdkOptions[Any]) -> str:
    session = options.get("session")
    return options.get("conversation_id") or (session.session_id if session else "") or ""
