"""One run of the Agents SDK while it is recorded: begun, watched for CancelRun, ended."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager, suppress
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

from agents import Agent, Model, RunHooks, RunResultStreaming, StreamEvent
from agents.run import RunOptions
from typing_extensions import override

from lavant.client import AsyncRunProducer
from lavant.client._async.concurrency import Background, is_being_cancelled
from lavant.client.integrations._guard import Guard
from lavant.client.integrations._openai_agents_failure import listening
from lavant.client.integrations._openai_agents_hooks import Place, RecordingHooks, place
from lavant.client.integrations._openai_agents_recorder import RunRecorder

_Result = TypeVar("_Result")


class Recording:
    """Records what is done in its block. Set `output` to report it."""

    def __init__(
        self, run: AsyncRunProducer, outer_step_id: str, options: RunOptions[Any], *, strict: bool = False
    ) -> None:
        self.output: object = None
        self._run = run
        guard = Guard("raise" if strict else "log", f"run {run.id}")
        self._recorder = RunRecorder(run, guard, outer_step_id)
        self._seen: Exception | None = None
        self._place = Place(run, self._recorder, model=configured_model(options))
        self.options: RunOptions[Any] = {
            **options,
            "hooks": _Hooks(self._place, options.get("hooks")),
            "run_config": listening(options.get("run_config"), _hear),
        }

    def begin(self, agent: Agent[Any], given: object) -> None:
        """The first agent begins."""
        self._place.record(lambda recorder: recorder.begin_agent(agent, given))

    def __enter__(self) -> Self:
        self._token = place.set(self._place)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with suppress(ValueError):  # left in another context than it was entered in
            place.reset(self._token)
        try:
            self._place.record(lambda recorder: recorder.finish(self.output, error))
        except Exception:
            if error is None:
                raise

    async def work(self, working: Coroutine[Any, Any, _Result]) -> _Result:
        """Do what is recorded, until CancelRun: then raises RunCancelled."""
        task = asyncio.create_task(working)
        watching = self._watch(task.cancel)
        try:
            return await task
        except asyncio.CancelledError:
            if not is_being_cancelled():
                self._run.raise_if_cancelled()
            raise
        finally:
            await watching.stop()

    @asynccontextmanager
    async def stream(self, streamed: RunResultStreaming) -> AsyncIterator[None]:
        """Record what is read from a stream, and cancel what is still at work at the block's end."""
        # The caller gets the SDK's own object, with all that it can do; only its events pass by here.
        vars(streamed)["stream_events"] = partial(self._events, streamed, streamed.stream_events)
        watching = self._watch(streamed.cancel)
        try:
            yield
        finally:
            await watching.stop()
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
        self._run.raise_if_cancelled()
        return asyncio.CancelledError("cancelled, or left before its end")

    async def _events(
        self, streamed: RunResultStreaming, events: Callable[[], AsyncIterator[StreamEvent]]
    ) -> AsyncIterator[StreamEvent]:
        async with aclosing(events()) as stream:  # type: ignore[type-var]
            try:
                async for event in stream:
                    if event.type == "raw_response_event":
                        self._place.record(partial(RunRecorder.stream, event=event.data))
                    yield event
            except Exception as error:
                self._seen = error
                raise
        if not self._has_output(streamed):
            self._run.raise_if_cancelled()

    def _has_output(self, streamed: RunResultStreaming) -> bool:
        return self._recorder.has_output or streamed.final_output is not None

    def _watch(self, cancel: Callable[[], object]) -> Background:
        async def cancel_when_asked() -> None:
            await self._run.wait_cancelled()
            cancel()

        return Background(cancel_when_asked)


class _Hooks(RecordingHooks):
    """The hooks of one run, which is recorded as a whole."""

    def __init__(self, at: Place, others: RunHooks[Any] | None) -> None:
        # LavantHooks would say it all again.
        super().__init__(None if isinstance(others, RecordingHooks) else others)
        self._at = at

    @override
    def find(self, agent: Agent[Any], context: object = None) -> Place:
        return self._at

    @override
    def end_agent(self, recorder: RunRecorder, output: object) -> None:
        recorder.has_output = True


def configured_model(options: RunOptions[Any]) -> str | Model | None:
    """Return the model that all agents of a run are to use, if any."""
    config = options.get("run_config") or {}
    return config.get("model") if isinstance(config, dict) else config.model


def _hear(context: object, error: Exception) -> None:
    # Of an agent in the tool that is not recorded itself, the tools' errors are heard here as well.
    if (at := place.get()) and at.tool and at.tool.key is context:
        at.tool.error = error
