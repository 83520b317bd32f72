"""What one run of the Agents SDK does, as events of a run of lavant's. Only queues, never waits."""

import asyncio
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from agents import Agent

from lavant.client import LavantError, Usage, _payloads
from lavant.client._ids import new_id
from lavant.client.integrations._answer_calls import AnswerCall
from lavant.client.integrations._conversation import asked
from lavant.client.integrations._guard import Guard
from lavant.client.integrations._message_recorder import Log
from lavant.client.integrations._openai_agents_answer import AnswerRecorder, described, usage_of
from lavant.client.integrations._reading import field as read
from lavant.client.integrations._reading import items
from lavant.client.integrations._recorder import Recorder
from lavant.client.integrations._tool_call_ids import ToolCallIds
from lavant.contract.text import to_text
from lavant.v1.event_pb2 import Event, ToolCallOutcome


class Run(Log, Protocol):
    """A run's producer, of either kind."""

    id: str
    usage: Usage | None


@dataclass(slots=True, eq=False)
class ToolAtWork:
    """A tool that has begun and not ended, the error that the SDK told the model of, and the agents run in it."""

    key: Hashable
    step_id: str
    error: BaseException | None = None
    inner: "list[RunRecorder]" = field(default_factory=list)


class RunRecorder:
    """Records one `Runner.run` as steps: its agents one after the other, in them their requests and tools.

    They belong to `outer_step_id`; empty: the run itself. After `finish`, nothing is recorded any more. What of it
    all cannot be recorded is lost alone: see Guard.
    """

    def __init__(self, run: Run, guard: Guard, outer_step_id: str = "") -> None:
        self.context: object = None
        self.has_output = self.is_finished = False
        self.agent: Agent[Any] | None = None
        self.inner: list[RunRecorder] = []
        self.guard = guard
        self._run = run
        self._steps = Recorder(run, outer_step_id)
        self._agent_key: Hashable = None
        self._answers: list[AnswerRecorder] = []
        self._read = 0
        # The calls of the last response that no tool has executed yet, and their arguments.
        self._asked: list[tuple[AnswerCall, object]] = []
        self._tools: dict[Hashable, ToolAtWork] = {}

    def begin_agent(self, agent: Agent[Any], given: object = None) -> None:
        """An agent is at work: another one than before, if that one handed over."""
        if agent is self.agent:
            return
        if self.agent is not None:
            self._end_agent({"handed_over_to": agent.name})
        self.agent, self._agent_key = agent, object()
        self._steps.begin_step(self._agent_key, agent.name, "agent", input=given)

    def begin_request(self, agent: Agent[Any], model: str, given: object, instructions: object = None) -> None:
        """A model is asked."""
        conversation = given if type(given) is list else []
        with self.guard:
            self._settle(conversation)
        self.begin_agent(agent)
        self._cut_answer(None)
        key = ("request", len(self._answers))
        messages = ""
        with self.guard:
            messages = asked(conversation, described, instructions)
        self._steps.begin_step(key, model, "model_request", parent=self._agent_key, input_json=messages)
        ids = ToolCallIds(self._steps.step_of(key))
        self._answers.append(AnswerRecorder(self._steps.message(key, model), ids, self.guard))

    def stream(self, event: object) -> None:
        """A reader of the stream has got to this event: maybe long after the response was whole."""
        if self._read < len(self._answers) and not self.is_finished:
            self._answers[self._read].add(event)
        self._read += read(event, "type") == "response.completed"

    def end_request(self, response: object) -> None:
        """The model has answered."""
        if not self._answers or self._answers[-1].is_finished:
            return
        self._asked += self._answers[-1].finish(response)
        usage = Usage(requests=1)
        with self.guard:
            usage = usage_of(response)
        said = None
        with self.guard:
            said = [part for item in items(response, "output") for part in described(item)]
        self._steps.end(("request", len(self._answers) - 1), output=said, usage=usage)
        self._run.usage = usage + (self._run.usage or Usage())
        self._tell(_payloads.progress("", None, None, len(self._answers), self._run.usage))

    def hand_over(self, to: Agent[Any], call_name: str) -> None:
        """An agent hands over to another one, which the model asked for by a tool call."""
        called = next((call for call, _ in self._asked if call.name == call_name), None)
        called = called or next((call for call, _ in self._asked), None)
        if called is not None:
            self._answer_call(called, {"assistant": to.name}, ToolCallOutcome.TOOL_CALL_OUTCOME_SUCCEEDED)

    def begin_tool(self, key: Hashable, name: str, arguments: object = None, given: object = None) -> ToolAtWork:
        """A tool is called; `given` is what the model calls the call."""
        call_id, original = new_id(), to_text(given)
        for call, _ in self._asked if original else ():
            if call.given == original and call.name in ("", name):
                call_id = self._taken(call).call_id
                break
        self._steps.begin_tool(
            key, name, arguments, call_id=call_id, original_id=original or None, parent=self._agent_key
        )
        tool = self._tools[key] = ToolAtWork(key, self._steps.step_of(key))
        return tool

    def end_tool(self, key: Hashable, result: object = None, error: BaseException | None = None) -> None:
        """A tool is done: it failed, if there is an error."""
        tool = self._tools.pop(key, None)
        if tool is None:
            return
        error = error if tool.error is None else tool.error
        for inner in tool.inner:
            inner.finish(error=LavantError("its end was not reported") if error is None else error)
        self._steps.end(key, output=result, error=error)

    def put_off_tool(self, key: Hashable) -> None:
        """A tool ended without a result: what is run in it waits for an approval."""
        if tool := self._tools.pop(key, None):
            for inner in tool.inner:
                inner.finish()
            self._steps.end(key, outcome=ToolCallOutcome.TOOL_CALL_OUTCOME_DENIED)

    def finish(self, output: object = None, error: BaseException | None = None) -> None:
        """The run is over. What is still at work was cut off, and is recorded as cancelled."""
        if self.is_finished:
            return
        self.is_finished = True
        self._cut_answer(error)
        for key in list(self._tools):
            self.end_tool(key, error=asyncio.CancelledError("cut off"))
        for inner in self.inner:
            inner.finish(error=asyncio.CancelledError("cut off"))
        self._end_agent(output, error)

    def _end_agent(self, output: object, error: BaseException | None = None) -> None:
        self._steps.end(self._agent_key, output=output, error=error)

    def _cut_answer(self, error: BaseException | None) -> None:
        if self._answers:
            self._answers[-1].finish(None)
            cut = asyncio.CancelledError("cut off") if error is None else error
            self._steps.end(("request", len(self._answers) - 1), error=cut, usage=Usage(requests=1))

    def _settle(self, given: Iterable[object]) -> None:
        """Record the calls that were answered without the tool's being run: refused by a guardrail, or by a person."""
        for item in given if self._asked else ():
            if read(item, "type") == "function_call_output":
                given_id = to_text(read(item, "call_id"))
                call = next((call for call, _ in self._asked if call.given == given_id), None)
                if call is not None:
                    self._answer_call(call, read(item, "output"), ToolCallOutcome.TOOL_CALL_OUTCOME_DENIED)
        self._asked.clear()

    def _answer_call(self, call: AnswerCall, result: object, outcome: "ToolCallOutcome.ValueType") -> None:
        arguments = next(arguments for other, arguments in self._asked if other is call)
        self._taken(call)
        made = _payloads.tool_call(call.call_id, call.name, arguments, original_id=call.given or None)
        self._tell(_payloads.tool_call_started(made))
        self._tell(_payloads.tool_call_finished(made, outcome, result))

    def _taken(self, call: AnswerCall) -> AnswerCall:
        self._asked = [(other, arguments) for other, arguments in self._asked if other is not call]
        return call

    def _tell(self, event: Event) -> None:
        event.step_id = self._steps.step_of(self._agent_key)
        self._run.enqueue(event)
