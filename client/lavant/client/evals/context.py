"""The EvaluatorContext of pydantic-evals for a stored run."""

from collections.abc import AsyncIterable
from typing import Any, TypeAlias

from pydantic_evals.evaluators import EvaluatorContext
from pydantic_evals.otel.span_tree import SpanTree

from lavant.client._reading.recording import Recording, RecordingProjection
from lavant.client.errors import RunNotEnded
from lavant.client.evals.spans import is_model_request, is_tool_call, span_tree_of
from lavant.client.events import Event
from lavant.client.models import Run, RunResult

Recorded: TypeAlias = Recording | AsyncIterable[Event]


async def context_of(
    recorded: Recorded, *, run: Run | None = None, expected_output: object = None
) -> EvaluatorContext[Any, Any, Any]:
    """Return the context that an evaluator gets for a stored run.

    `recorded` is what `stream.collect(raise_for_state=False)` returned, or the run's events from the first on.
    `output` is the run's, else its text. `metadata` are the attributes of its first event and the labels of `run`;
    `name` is the name of `run`, else the run's id. `attributes` have `run_id`, `state`, the `error` that ended the
    run and the `errors` that did not, `version` and `model`. `metrics` have `duration` in seconds, `tool_calls`,
    `requests`, and tokens and `cost` in US dollars as far as they are known. The span tree is one span of the run,
    with nested agents, steps, model requests and tool calls below it, at their times.

    Raises RunNotEnded if the events end before the run, ValueError for a recording without events, and what
    reading them raises.

    Example:
        context = await context_of(client.runs.events(run_id), run=await client.runs.get(run_id))
        assert (context.name, context.output) == ("weather-agent", {"answer": "cold"})
        [search] = context.span_tree.find({"name_equals": "execute_tool search_web"})
        assert search.parent.name == "plan"
    """
    recording = recorded if isinstance(recorded, Recording) else await _collect(recorded, run)
    if not recording.events:
        raise ValueError("there are no events of the run: pass its events from the first on")
    result = recording.result
    name = run.name if run else result.run_id
    tree = span_tree_of(recording, name)
    started = next((event for event in recording.events if event.type == "run_started"), None)
    duration = _seconds(recording, tree)
    described = {"version": started.data.version, "model": started.data.model} if started else {}
    return EvaluatorContext(
        name=name or None,
        inputs=started.data.input if started else None,
        metadata=(dict(started.attributes) if started else {}) | (dict(run.labels) if run else {}),
        expected_output=expected_output,
        output=recording.text if result.output is None else result.output,
        duration=duration,
        _span_tree=tree,
        attributes={
            "run_id": result.run_id,
            "state": result.state.value,
            "error": result.error.model_dump() if result.error else None,
            "errors": [error.model_dump() for error in recording.errors],
            **described,
        },
        metrics={"duration": duration} | _counts(recording, tree),
    )


async def _collect(events: AsyncIterable[Event], run: Run | None) -> Recording:
    collected = RecordingProjection()
    result: RunResult | None = None
    async for event in events:
        collected.add(event)
        if event.type == "run_finished":
            result = RunResult.from_proto(event.proto.run_finished, run_id=run.id if run else "")
    if result is None:
        raise RunNotEnded("the events end before the run does: only a run that has ended can be evaluated")
    return collected.recording(result)


def _seconds(recording: Recording, tree: SpanTree) -> float:
    measured = recording.result.duration
    return (tree.roots[0].duration if measured is None else measured).total_seconds()


def _counts(recording: Recording, tree: SpanTree) -> dict[str, int | float]:
    known = recording.usage.model_dump(exclude={"model", "cost_usd"}, exclude_defaults=True)
    if recording.usage.cost_usd is not None:
        known["cost"] = recording.usage.cost_usd
    return {
        "tool_calls": sum(map(is_tool_call, tree)),
        "requests": sum(map(is_model_request, tree)),
        **known,
    }
