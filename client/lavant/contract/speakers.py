"""Speakers of a run: its own agent, and agents nested in it."""

from dataclasses import dataclass

from lavant.v1.event_pb2 import Event, StepKind, StepStarted


@dataclass(frozen=True, slots=True)
class _Place:
    name: str
    is_nested: bool
    is_in_agent: bool


_RUN = _Place("", is_nested=False, is_in_agent=False)
_ACTS = ("message_started", "text_delta", "message_finished", "tool_call_started")


class Speakers:
    """Knows for every step whether it is part of a nested agent.

    A step is nested within a tool's step, and within an agent's step inside another agent. The run itself is an agent
    once it writes text, requests a model or calls a tool outside of agents' steps: every agent's step that starts later
    is nested. Before that, agents' outermost steps are the run's own, as where one agent hands over to the next. A step
    whose start was not read counts as the run's own.
    """

    def __init__(self) -> None:
        self._places: dict[str, _Place] = {}
        self._run_is_agent = False

    def add(self, event: Event) -> None:
        """Add an event. Those that are not about steps matter until the run is known to be an agent."""
        if event.HasField("step_started"):
            self._start(event.step_started)
        elif not self._run_is_agent and event.WhichOneof("payload") in _ACTS:
            self._run_is_agent = not self._place(event.step_id).is_in_agent

    def is_nested(self, step_id: str) -> bool:
        """Return whether a step is part of a nested agent."""
        return self._place(step_id).is_nested

    def name_of(self, step_id: str) -> str:
        """Return a step's name, empty for the run itself."""
        return self._place(step_id).name

    def forget(self, step_id: str) -> None:
        """Remove a step that has finished, and that no event or step refers to any more."""
        self._places.pop(step_id, None)

    def _start(self, started: StepStarted) -> None:
        around = self._place(started.parent_step_id)
        is_agent, is_tool = started.kind == StepKind.STEP_KIND_AGENT, started.kind == StepKind.STEP_KIND_TOOL
        if (is_tool or started.kind == StepKind.STEP_KIND_MODEL_REQUEST) and not around.is_in_agent:
            self._run_is_agent = True
        is_nested = around.is_nested or is_tool or (is_agent and (around.is_in_agent or self._run_is_agent))
        self._places[started.step_id] = _Place(started.name, is_nested, around.is_in_agent or is_agent)

    def _place(self, step_id: str) -> _Place:
        return self._places.get(step_id, _RUN)
