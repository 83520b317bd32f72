"""What one run of the Agents SDK does, as events of a run of lavant's. Only queues, never waits."""

import asyncio
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from agents import Agent, ModelResponse, TResponseInputItem
from agents.items import TResponseStreamEvent
from openai.types.responses import ResponseFunctionToolCall

from lavant.client import LavantError, Usage, _json, _payloads
from lavant.client._ids import new_id
from lavant.client.integrations._message_recorder import Log
from lavant.client.integrations._openai_agents_answer import AnswerRecorder, usage_of
from lavant.client.integrations._recorder import Recorder
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

    They belong to `outer_step_id`; empty: the run itself. After `finish`, nothing is recorded any more.
    """

    def __init__(self, run: Run, outer_step_id: str = "") -> None:
        self.context: object = None
        self.has_output = self.is_finished = False
        self.agent: Agent[Any] | None = None
        self.inner: list[RunRecorder] = []
        self._run = run
        self._steps = Recorder(run, outer_step_id)
        self._agent_key: Hashable = None
        self._usage = Usage()
        self._answers: list[AnswerRecorder] = []
        self._read = 0
        self._asked: dict[str, ResponseFunctionToolCall] = {}
        self._call_ids: dict[str, str] = {}
        self._tools: dict[Hashable, ToolAtWork] = {}

    def begin_agent(self, agent: Agent[Any], given: object = None) -> None:
        """An agent is at work: another one than before, if that one handed over."""
        if agent is self.agent:
            return
        if self.agent is not None:
            self._end_agent({"handed_over_to": agent.name})
        self.agent, self._agent_key = agent, object()
        self._steps.begin_step(self._agent_key, agent.name, "agent", input=given)

    def begin_request(self, agent: Agent[Any], model: str, given: Iterable[TResponseInputItem]) -> None:
        """A model is asked."""
        self._settle(given)
        self.begin_agent(agent)
        self._cut_answer(None)
        key = ("request", len(self._answers))
        self._steps.begin_step(key, model, "model_request", parent=self._agent_key)
        self._answers.append(AnswerRecorder(self._steps.message(key, model), self._call_id))

    def stream(self, event: TResponseStreamEvent) -> None:
        """A reader of the stream has got to this event: maybe long after the response was whole."""
        if self._read < len(self._answers) and not self.is_finished:
            self._answers[self._read].add(event)
        self._read += event.type == "response.completed"

    def end_request(self, response: ModelResponse) -> None:
        """The model has answered."""
        usage = usage_of(response)
        for item in response.output:
            if isinstance(item, ResponseFunctionToolCall):
                self._asked[item.call_id] = item
        self._answers[-1].finish(response)
        self._steps.end(("request", len(self._answers) - 1), usage=usage)
        self._usage += usage
        self._run.usage = usage + (self._run.usage or Usage())
        self._tell(_payloads.progress("", None, None, len(self._answers), self._run.usage))

    def hand_over(self, to: Agent[Any], call_name: str) -> None:
        """An agent hands over to another one, which the model asked for by a tool call."""
        called = next((call for call in self._asked.values() if call.name == call_name), None)
        called = called or next(iter(self._asked.values()), None)
        if called is not None:
            self._answer_call(called, {"assistant": to.name}, ToolCallOutcome.TOOL_CALL_OUTCOME_SUCCEEDED)

    def begin_tool(self, key: Hashable, name: str, arguments: object = None, given: str = "") -> ToolAtWork:
        """A tool is called; `given` is what the model calls the call."""
        self._asked.pop(given, None)
        call_id = self._call_ids.pop(given, "") or new_id()
        self._steps.begin_tool(key, name, arguments, call_id=call_id, parent=self._agent_key)
        tool = self._tools[key] = ToolAtWork(key, self._steps.step_of(key))
        return tool

    def end_tool(self, key: Hashable, result: object = None, error: BaseException | None = None) -> None:
        """A tool is done: it failed, if there is an error."""
        tool = self._tools.pop(key, None)
        if tool is None:
            return
        error = tool.error or error
        for inner in tool.inner:
            inner.finish(error=error or LavantError("its end was not reported"))
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
        self._steps.end(self._agent_key, output=output, error=error, usage=self._usage)
        self._usage = Usage()

    def _cut_answer(self, error: BaseException | None) -> None:
        if self._answers:
            self._answers[-1].finish(None)
            cut = error or asyncio.CancelledError("cut off")
            self._steps.end(("request", len(self._answers) - 1), error=cut, usage=Usage(requests=1))

    def _settle(self, given: Iterable[TResponseInputItem]) -> None:
        """Record the calls that were answered without the tool's being run: refused by a guardrail, or by a person."""
        for item in given:
            if not isinstance(item, dict) or item.get("type") != "function_call_output":
                continue
            if call := self._asked.get(str(item.get("call_id"))):
                self._answer_call(call, item.get("output"), ToolCallOutcome.TOOL_CALL_OUTCOME_DENIED)
        self._asked.clear()
        self._call_ids.clear()

    def _answer_call(
        self, call: ResponseFunctionToolCall, result: object, outcome: "ToolCallOutcome.ValueType"
    ) -> None:
        del self._asked[call.call_id]
        call_id = self._call_ids.pop(call.call_id, "") or new_id()
        described = _payloads.recorded_call(call_id, call.name, call.arguments)
        self._tell(_payloads.tool_call_started(described))
        self._tell(_payloads.tool_call_finished(described, outcome, _json.bounded(result)))

    def _tell(self, event: Event) -> None:
        event.step_id = self._steps.step_of(self._agent_key)
        self._run.enqueue(event)

    def _call_id(self, given: str) -> str:
        """Name a call apart from those of other requests, which may count alike."""
        request = ("request", len(self._answers) - 1)
        if given not in self._call_ids:
            self._call_ids[given] = self._steps.call_id(request, given)
        return self._call_ids[given]
