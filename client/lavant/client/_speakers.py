"""Which steps speak for the run's own agent, and which for agents nested in it. Pure."""

from dataclasses import dataclass

from lavant.client._event_data import StepStarted
from lavant.client._events import Event
from lavant.client._states import StepKind


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
    as soon as it speaks, requests a model or calls a tool outside of agents' steps: then every agent's step that starts
    later is nested. Before that, agents' outermost steps are the run's own, as where one agent hands over to the next.
    A step whose start was not read counts as the run's own.
    """

    def __init__(self) -> None:
        self._places: dict[str, _Place] = {}
        self._run_is_agent = False

    def add(self, event: Event) -> None:
        """Take an event. Those that are not about steps matter until the run is known to be an agent."""
        if event.type == "step_started":
            self._start(event.data)
        elif not self._run_is_agent and event.type in _ACTS:
            self._run_is_agent = not self._place(event.step_id).is_in_agent

    def is_nested(self, step_id: str) -> bool:
        """Tell whether a step is part of a nested agent."""
        return self._place(step_id).is_nested

    def name_of(self, step_id: str) -> str:
        """Return a step's name, empty for the run itself."""
        return self._place(step_id).name

    def _start(self, started: StepStarted) -> None:
        around = self._place(started.parent_step_id)
        is_agent, is_tool = started.kind is StepKind.AGENT, started.kind is StepKind.TOOL
        if started.kind in (StepKind.MODEL_REQUEST, StepKind.TOOL) and not around.is_in_agent:
            self._run_is_agent = True
        is_nested = around.is_nested or is_tool or (is_agent and (around.is_in_agent or self._run_is_agent))
        self._places[started.step_id] = _Place(started.name, is_nested, around.is_in_agent or is_agent)

    def _place(self, step_id: str) -> _Place:
        return self._places.get(step_id, _RUN)
