"""One run of the Agents SDK as events of a run. Only queues, never waits."""

import asyncio
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import Any

from agents import Agent

from lavant.client import LavantError, Usage
from lavant.client._publishing import payloads as _payloads
from lavant.client._publishing.guard import Guard
from lavant.client._wire.ids import new_id
from lavant.client.integrations.openai_agents.answers import add_event, describe, finish_answer
from lavant.client.integrations.recording import reading as _reading
from lavant.client.integrations.recording.messages import AnswerCall, AnswerRecorder
from lavant.client.integrations.recording.runs import RunLog
from lavant.client.integrations.recording.steps import ModelRequests, Outcome, StepRecorder
from lavant.contract.text import to_text
from lavant.v1.event_pb2 import Event, ToolCallOutcome


@dataclass(slots=True, eq=False)
class OpenTool:
    """A tool that has started and not ended, its error if the SDK reported one, and the runs that started in it."""

    key: Hashable
    step_id: str
    error: BaseException | None = None
    inner: "list[RunRecorder]" = field(default_factory=list)


class RunRecorder:
    """Records one `Runner.run` as steps: its agents one after the other, in them their requests and tools.

    They belong to `outer_step_id`; empty: to the run itself. After `finish`, nothing is recorded any more. What cannot
    be recorded is lost alone: see Guard.
    """

    def __init__(self, run: RunLog, guard: Guard, outer_step_id: str = "") -> None:
        self.context: object = None
        self.has_output = self.is_finished = False
        self.agent: Agent[Any] | None = None
        self.inner: list[RunRecorder] = []
        self.guard = guard
        self._run = run
        self._steps = StepRecorder(run, outer_step_id)
        self._requests = ModelRequests(run, self._steps, guard)
        self._agent_key: Hashable = None
        self._answers: list[AnswerRecorder] = []
        self._streamed = 0  # of the answers, how many have been read from the stream
        # Calls of the last response that no tool has executed yet.
        self._pending: list[AnswerCall] = []
        self._tools: dict[Hashable, OpenTool] = {}

    def start_agent(self, agent: Agent[Any], given: object = None) -> None:
        """Record that an agent works: another one than before, if that one handed over."""
        if agent is self.agent:
            return
        if self.agent is not None:
            self._steps.finish(self._agent_key, output={"handed_over_to": agent.name})
        self.agent, self._agent_key = agent, object()
        self._steps.start(self._agent_key, agent.name, "agent", input=given)

    def start_request(self, agent: Agent[Any], model: str, given: object, instructions: object = None) -> None:
        """Record a request to a model."""
        conversation = given if type(given) is list else []
        with self.guard:
            self._settle(conversation)
        self.start_agent(agent)
        self._cut_request(None)
        key = ("request", len(self._answers))
        self._answers.append(
            self._requests.start(key, model, conversation, describe, instructions=instructions, parent=self._agent_key)
        )

    def stream(self, event: object) -> None:
        """Record an event that was read from the stream: perhaps long after the response was complete."""
        if self._streamed < len(self._answers) and not self.is_finished:
            add_event(self._answers[self._streamed], event)
        self._streamed += _reading.field(event, "type") == "response.completed"

    def finish_request(self, response: object) -> None:
        """Record a model's response."""
        if not self._answers or self._answers[-1].is_finished:
            return
        answer = self._answers[-1]
        usage = finish_answer(answer, response, self.guard)
        self._pending += [call for call in answer.calls if call.is_complete]
        output = None
        with self.guard:
            output = [entry for item in _reading.items(response, "output") for entry in describe(item)]
        self._finish_request(output=output, usage=usage)

    def hand_over(self, to: Agent[Any], call_name: str) -> None:
        """Record that an agent hands over to another one, which the model requested by a tool call."""
        call = next((call for call in self._pending if call.name == call_name), None)
        call = call or next(iter(self._pending), None)
        if call is not None:
            self._answer_call(call, {"assistant": to.name}, ToolCallOutcome.TOOL_CALL_OUTCOME_SUCCEEDED)

    def start_tool(self, key: Hashable, name: str, arguments: object = None, given_id: object = None) -> OpenTool:
        """Record a tool that starts to execute a call; `given_id` is the model's id of the call."""
        call_id, original_id = new_id(), to_text(given_id)
        for call in self._pending if original_id else ():
            if call.original_id == original_id and call.name in ("", name):
                self._pending.remove(call)
                call_id = call.id
                break
        step_id = self._steps.start_tool(
            key, name, arguments, call_id=call_id, original_id=original_id or None, parent=self._agent_key
        )
        tool = self._tools[key] = OpenTool(key, step_id)
        return tool

    def finish_tool(self, key: Hashable, result: object = None, error: BaseException | None = None) -> None:
        """Record a tool's result, or its error."""
        tool = self._tools.pop(key, None)
        if tool is None:
            return
        error = error if tool.error is None else tool.error
        for inner in tool.inner:
            inner.finish(error=LavantError("its end was not reported") if error is None else error)
        self._steps.finish(key, output=result, error=error)

    def defer_tool(self, key: Hashable) -> None:
        """Record that a tool ended without a result: a run in it waits for an approval."""
        if tool := self._tools.pop(key, None):
            for inner in tool.inner:
                inner.finish()
            self._steps.finish(key, outcome=ToolCallOutcome.TOOL_CALL_OUTCOME_DENIED)

    def finish(self, output: object = None, error: BaseException | None = None) -> None:
        """Record the end of the run. What is still open was cut off, and is recorded as cancelled."""
        if self.is_finished:
            return
        self.is_finished = True
        self._cut_request(error)
        for key in list(self._tools):
            self.finish_tool(key, error=asyncio.CancelledError("cut off"))
        for inner in self.inner:
            inner.finish(error=asyncio.CancelledError("cut off"))
        self._steps.finish(self._agent_key, output=output, error=error)

    def _cut_request(self, error: BaseException | None) -> None:
        """Record that the open request, if there is one, has no response."""
        if self._answers and not self._answers[-1].is_finished:
            usage = Usage(requests=1)
            self._answers[-1].finish(usage=usage)
            self._finish_request(error=asyncio.CancelledError("cut off") if error is None else error, usage=usage)

    def _finish_request(self, *, usage: Usage, output: object = None, error: BaseException | None = None) -> None:
        key, step_id = ("request", len(self._answers) - 1), self._steps.step_id(self._agent_key)
        self._requests.finish(key, step_id=step_id, usage=usage, output=output, error=error)

    def _settle(self, given: Iterable[object]) -> None:
        """Record the calls that were answered without running the tool: refused by a guardrail, or by a person."""
        for item in given if self._pending else ():
            if _reading.field(item, "type") == "function_call_output":
                given_id = to_text(_reading.field(item, "call_id"))
                call = next((call for call in self._pending if call.original_id == given_id), None)
                if call is not None:
                    output = _reading.field(item, "output")
                    self._answer_call(call, output, ToolCallOutcome.TOOL_CALL_OUTCOME_DENIED)
        self._pending.clear()

    def _answer_call(self, call: AnswerCall, result: object, outcome: Outcome) -> None:
        self._pending.remove(call)
        described = _payloads.tool_call(call.id, call.name, call.arguments, original_id=call.original_id or None)
        self._enqueue(_payloads.tool_call_started(described))
        self._enqueue(_payloads.tool_call_finished(described, outcome, result))

    def _enqueue(self, event: Event) -> None:
        event.step_id = self._steps.step_id(self._agent_key)
        self._run.enqueue(event)
