"""Logs of any shape that the contract allows: events are made at random, and those that break a rule are left out."""

import json
from copy import deepcopy
from random import Random
from typing import Any

from lavant.contract.events import LogContent, apply
from lavant.contract.values import Violation
from lavant.v1 import event_pb2 as e
from lavant.v1.run_pb2 import Error, RunFinished, RunState, TokenUsage
from support.events import identified, run_started

_STATES = [state for state in RunState.values() if state >= RunState.RUN_STATE_SUCCEEDED]
_OUTCOMES = [outcome for outcome in e.ToolCallOutcome.values() if outcome]
_WORDS = ["It ", "is ", "cold", "é🌊\u2028", "\n\n", '"}', ""]
_JSON = ["", "null", "1", '"a\\n"', '{"a": [1, null]}', '"é"', "[\r\n1]"]
_PATCHES = ["", "[]", '[{"op": "add", "path": "/a", "value": 1}]', '[{"op": "no"}]', "{}"]


class Draft:
    """Makes events that may follow those made before. Messages, and calls by messages, have IDs of their own."""

    def __init__(self) -> None:
        self._messages: dict[str, list[e.MessagePart]] = {}
        self._unsent: dict[str, str] = {}  # arguments of calls whose deltas are being sent
        self._calls: list[e.ToolCall] = []
        self._steps = ["s0"]
        self._count = 0

    def event(self, random: Random) -> e.Event:
        """Return an event, which may break a rule."""
        make: Any = random.choice(
            [
                self._start_message,
                self._finish_message,
                self._finish_message,
                *[self._delta] * 12,
                self._start_step,
                self._finish_step,
                self._start_call,
                self._end_call,
                self._end_call,
                self._other,
            ]
        )
        made: e.Event = make(random)
        if not made.HasField("step_started"):
            made.step_id = random.choice(["", self._steps[-1]])
        return identified(made)

    def _some_call(self, random: Random) -> e.ToolCall:
        if not self._calls or random.random() < 0.5:
            arguments = json.dumps({"q": random.choice(_WORDS)})
            call_id = f"c{len(self._calls)}"
            self._calls.append(
                e.ToolCall(tool_call_id=call_id, tool_name="look", arguments_json=random.choice(["", arguments]))
            )
            return self._calls[-1]
        return random.choice(self._calls)

    def _start_call(self, random: Random) -> e.Event:
        return e.Event(tool_call_started=e.ToolCallStarted(call=self._some_call(random)))

    def _end_call(self, random: Random) -> e.Event:
        call_id = self._some_call(random).tool_call_id
        if random.random() < 0.4:
            return e.Event(tool_output_delta=e.ToolOutputDelta(tool_call_id=call_id, text=random.choice(_WORDS)))
        return e.Event(
            tool_call_finished=e.ToolCallFinished(
                tool_call_id=call_id,
                tool_name="look",
                outcome=random.choice(_OUTCOMES),
                result_json=random.choice(_JSON),
                error=Error(message="no"),
            )
        )

    def _start_step(self, random: Random) -> e.Event:
        """Return a step of its own, or another attempt of one."""
        attempt = random.choice([0, 1, 2, 3])
        step_id = random.choice(self._steps) if attempt > 1 else f"s{len(self._steps)}"
        self._steps.append(step_id)
        return e.Event(
            step_started=e.StepStarted(
                step_id=step_id,
                parent_step_id=random.choice(["", *self._steps[-4:]]),
                name=random.choice(["", "look", "say"]),
                kind=random.choice(e.StepKind.values()),
                attempt=attempt,
            )
        )

    def _finish_step(self, random: Random) -> e.Event:
        state = random.choice(_STATES)
        return e.Event(step_finished=e.StepFinished(step_id=random.choice(self._steps), state=state))

    def _start_message(self, random: Random) -> e.Event:
        self._count += 1
        message_id = f"m{self._count}"
        self._messages[message_id] = []
        role = random.choice([*[e.Role.ROLE_ASSISTANT] * 4, *e.Role.values()])
        return e.Event(message_started=e.MessageStarted(message_id=message_id, role=role))

    def _delta(self, random: Random) -> e.Event:
        """Return a delta of a message's last part, or of a next one."""
        message_id = random.choice([*self._messages, "m0"])
        parts = self._messages.setdefault(message_id, [])
        if not parts or random.random() < 0.2:
            kind = random.choice(["text", "text", "reasoning", "tool_call"])
            if kind == "tool_call":
                call = e.ToolCall(tool_call_id=f"c{len(self._calls)}", tool_name="look", arguments_json='{"q": "Oslo"}')
                self._calls.append(call)
                self._unsent[call.tool_call_id] = call.arguments_json
                parts.append(e.MessagePart(tool_call=call))
            else:
                parts.append(e.MessagePart(text="") if kind == "text" else e.MessagePart(reasoning=""))
        part, index, text = parts[-1], len(parts) - 1, random.choice(_WORDS)
        match part.WhichOneof("content"):
            case "tool_call":
                call_id, length = part.tool_call.tool_call_id, random.randrange(5)
                text, self._unsent[call_id] = self._unsent[call_id][:length], self._unsent[call_id][length:]
                delta = e.ToolArgumentsDelta(message_id=message_id, part_index=index, tool_name="look", arguments=text)
                delta.tool_call_id = call_id
                return e.Event(tool_arguments_delta=delta)
            case "reasoning":
                part.reasoning += text
                return e.Event(reasoning_delta=e.ReasoningDelta(message_id=message_id, part_index=index, text=text))
            case _:
                part.text += text
                return e.Event(text_delta=e.TextDelta(message_id=message_id, part_index=index, text=text))

    def _finish_message(self, random: Random) -> e.Event:
        """Return the whole of a message: that of its deltas, more, or something else."""
        message_id = random.choice([*self._messages, "m0"])
        parts = self._messages.pop(message_id, [])
        other = [e.MessagePart(text="other"), e.MessagePart(tool_call=self._some_call(random))]
        more = [*parts, e.MessagePart(text="more"), e.MessagePart(reasoning="why")]
        whole = random.choice([parts, parts, more, other])
        return e.Event(message_finished=e.MessageFinished(message_id=message_id, parts=whole))

    def _other(self, random: Random) -> e.Event:
        name, value = random.choice(["", "s"]), random.choice(_JSON)
        return random.choice(
            [
                e.Event(run_state_changed=e.RunStateChanged(state=RunState.RUN_STATE_RUNNING)),
                e.Event(progress_reported=e.ProgressReported(label="rows", completed=1)),
                e.Event(error_reported=e.ErrorReported(error=Error(message="odd"))),
                e.Event(state_snapshot=e.StateSnapshot(name=name, value_json=value)),
                e.Event(state_delta=e.StateDelta(name=name, patch_json=random.choice(_PATCHES))),
                e.Event(artifact_updated=e.ArtifactUpdated(artifact_id="a", data=b"x", append=bool(name))),
                e.Event(input_requested=e.InputRequested(input_id="i", prompt="why?")),
                e.Event(input_resolved=e.InputResolved(input_id="i", answer_json=value)),
                e.Event(custom=e.CustomEvent(name="acme.note", value_json=value)),
                e.Event(row_finished=e.RowFinished(row_id="r", iteration=1)),
            ]
        )


def any_log(seed: int, size: int = 60, *, state: "RunState.ValueType | None" = None) -> list[e.Event]:
    """Return a log that ends in a state, or in any terminal one, with whatever is open by then."""
    random = Random(seed)
    draft, content = Draft(), LogContent()
    events = [run_started()]
    apply(content, events)
    while len(events) < size - 1:
        before = deepcopy(draft)
        event = draft.event(random)
        content.mark()
        try:
            apply(content, [event])
        except Violation:
            content.undo()
            draft = before
        else:
            events.append(event)
    end = RunFinished(state=random.choice(_STATES) if state is None else state, output_json=random.choice(_JSON))
    end.usage.CopyFrom(TokenUsage(input_tokens=1, output_tokens=2))
    if end.state != RunState.RUN_STATE_SUCCEEDED:
        end.error.CopyFrom(Error(message="it broke"))
    events.append(identified(e.Event(run_finished=end)))
    apply(content, events[-1:])
    for number, event in enumerate(events, 1):
        event.sequence = number
    return events
