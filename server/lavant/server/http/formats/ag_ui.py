"""AG-UI, version 1.0: https://docs.ag-ui.com/concepts/events.

RUN_FINISHED is refused by readers while a message, a tool call or a step is open, and content of what is not open.
"""

import json
import re
from typing import Any

from lavant.contract.json_text import quote, to_json, to_line, to_object
from lavant.server.http.formats.projection import CALL, REASONING, Part, Projection, Texts, word
from lavant.v1.event_pb2 import Event, StepKind, StepStarted, ToolCall, ToolCallOutcome
from lavant.v1.run_pb2 import Run, RunFinished, RunState, TokenUsage

_POINTER = re.compile("(/([^/~]|~[01])*)*")  # RFC 6901
_OPERANDS = {"add": "value", "replace": "value", "test": "value", "move": "from", "copy": "from", "remove": "path"}


class AgUiProjection(Projection):
    """Projection to AG-UI's events. Those that AG-UI has no event for are CUSTOM, named `lavant.` and their type."""

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self._names: dict[str, str] = {}

    @staticmethod
    def broken_off(reason: str, message: str) -> list[str]:
        """Return an error: a stream that merely ends could be taken for the end of the run."""
        return [to_object(type='"RUN_ERROR"', message=quote(message), code=quote(reason))]

    def started(self) -> Texts:
        """Return RUN_STARTED; the thread is the run's conversation."""
        yield _event("RUN_STARTED", threadId=quote(self.thread_id), runId=quote(self.run_id))

    def finished(self, end: RunFinished) -> Texts:
        """Return RUN_FINISHED of a run that succeeded or was cancelled, RUN_ERROR of another one."""
        usage = _usage(end.usage) if end.HasField("usage") else None
        if end.state not in (RunState.RUN_STATE_SUCCEEDED, RunState.RUN_STATE_CANCELLED):
            message, code = end.error.message or "the run failed", word(RunState, end.state, "RUN_STATE_").upper()
            yield _event("RUN_ERROR", message=quote(message), code=quote(code), usage=usage)
            return
        is_cancelled = end.state == RunState.RUN_STATE_CANCELLED
        result = to_line(end.output_json)
        yield _event(
            "RUN_FINISHED",
            threadId=quote(self.thread_id),
            runId=quote(self.run_id),
            result=result if result not in ("", "null") else None,  # AG-UI has no null
            outcome='{"type": "cancelled"}' if is_cancelled else None,
            usage=usage,
        )

    def open_part(self, part: Part, tool_name: str = "") -> Texts:
        """Return the start of a message, a message of reasoning or a tool call."""
        if part.kind == CALL:
            yield _call_start(part.call_id, tool_name, part.message_id)
        elif part.kind == REASONING:
            message_id = _reasoning_id(part)
            yield _event("REASONING_START", messageId=message_id)
            yield _event("REASONING_MESSAGE_START", messageId=message_id, role='"reasoning"')
        else:
            yield _event("TEXT_MESSAGE_START", messageId=quote(part.message_id), role='"assistant"')

    def delta(self, part: Part, text: str) -> Texts:
        """Return content of a message, or arguments."""
        if part.kind == CALL:
            yield _event("TOOL_CALL_ARGS", toolCallId=quote(part.call_id), delta=quote(text))
        elif part.kind == REASONING:
            yield _event("REASONING_MESSAGE_CONTENT", messageId=_reasoning_id(part), delta=quote(text))
        else:
            yield _event("TEXT_MESSAGE_CONTENT", messageId=quote(part.message_id), delta=quote(text))

    def close_part(self, part: Part) -> Texts:
        """Return the end of a message or of a call's arguments."""
        if part.kind == CALL:
            yield _event("TOOL_CALL_END", toolCallId=quote(part.call_id))
        elif part.kind == REASONING:
            yield _event("REASONING_MESSAGE_END", messageId=_reasoning_id(part))
            yield _event("REASONING_END", messageId=_reasoning_id(part))
        else:
            yield _event("TEXT_MESSAGE_END", messageId=quote(part.message_id))

    def call(self, call: ToolCall, message_id: str, sent: int | None) -> Texts:
        """Return a call, or the rest of its arguments: readers append to a call that starts again."""
        rest = call.arguments_json[sent or 0 :]
        if sent is None or rest:
            yield _call_start(call.tool_call_id, call.tool_name, message_id)
            if rest:
                yield _event("TOOL_CALL_ARGS", toolCallId=quote(call.tool_call_id), delta=quote(rest))
            yield _event("TOOL_CALL_END", toolCallId=quote(call.tool_call_id))

    def result(self, event: Event) -> Texts:
        """Return the result of a tool, as a message of its own, or its error, whose outcome is in `metadata`."""
        finished = event.tool_call_finished
        has_failed = finished.outcome != ToolCallOutcome.TOOL_CALL_OUTCOME_SUCCEEDED
        text = finished.result_json
        outcome = quote(word(ToolCallOutcome, finished.outcome, "TOOL_CALL_OUTCOME_"))
        content = quote(finished.error.message) if has_failed else text if text[:1] == '"' else quote(text)
        yield _event(
            "TOOL_CALL_RESULT",
            messageId=quote(event.event_id),
            toolCallId=quote(finished.tool_call_id),
            content=to_line(content),
            role='"tool"',
            metadata=to_object(outcome=outcome) if has_failed else None,
        )

    def start_step(self, step: StepStarted) -> Texts:
        """Return STEP_STARTED, with the name of the step or, without one, its kind."""
        name = plain = step.name or word(StepKind, step.kind, "STEP_KIND_")
        taken, number = {*self._names.values()}, 1
        while name in taken:  # readers know steps by their names only
            number += 1
            name = f"{plain} {number}"
        self._names[step.step_id] = name
        yield _event("STEP_STARTED", stepName=quote(name))

    def finish_step(self, step: StepStarted, state: str) -> Texts:
        """Return STEP_FINISHED, with the state of a step that did not succeed in `metadata`."""
        metadata = to_object(state=quote(state)) if state not in ("", "succeeded") else None
        yield _event("STEP_FINISHED", stepName=quote(self._names.pop(step.step_id)), metadata=metadata)

    def other(self, event: Event) -> Texts:
        """Return changes of the run's own state, and CUSTOM for all else."""
        payload = event.WhichOneof("payload") or ""
        if payload == "custom":
            value = to_line(event.custom.value_json) or "null"
            yield _event("CUSTOM", name=quote(event.custom.name), value=value)
        elif payload == "state_snapshot" and not event.state_snapshot.name:
            yield _event("STATE_SNAPSHOT", snapshot=to_line(event.state_snapshot.value_json) or "null")
        elif payload == "state_delta" and not event.state_delta.name and _is_patch(event.state_delta.patch_json):
            yield _event("STATE_DELTA", delta=to_line(event.state_delta.patch_json))
        else:
            yield _event("CUSTOM", name=quote(f"lavant.{payload}"), value=to_json(getattr(event, payload)))


def _event(kind: str, **members: str | None) -> str:
    return to_object(type=f'"{kind}"', **members)


def _call_start(call_id: str, tool_name: str, message_id: str) -> str:
    parent = quote(message_id) if message_id else None
    names = {"toolCallId": quote(call_id), "toolCallName": quote(tool_name), "parentMessageId": parent}
    return _event("TOOL_CALL_START", **names)


def _reasoning_id(part: Part) -> str:
    """Return an ID other than that of the message: reasoning is a message of its own."""
    return quote(f"{part.id}.reasoning")


def _usage(usage: TokenUsage) -> str:
    counts = {
        "inputTokens": usage.input_tokens,
        "outputTokens": usage.output_tokens,
        "reasoningTokens": usage.reasoning_output_tokens,
        "cachedInputTokens": usage.cache_read_input_tokens,
        "cacheWriteInputTokens": usage.cache_creation_input_tokens,
    }
    known = {name: str(count) for name, count in counts.items() if 0 < count < 2**53}
    return f"[{to_object(model=quote(usage.model) if usage.model else None, **known)}]"


def _is_patch(text: str) -> bool:
    """Return whether JSON is a JSON Patch: the server does not check that, and one that is none ends AG-UI's reader."""
    operations = json.loads(text or "null")
    return isinstance(operations, list) and all(map(_is_operation, operations))


def _is_operation(operation: Any) -> bool:
    if not isinstance(operation, dict) or operation.get("op") not in _OPERANDS:
        return False
    operand = _OPERANDS[operation["op"]]
    pointers = [operation.get("path"), *([operation.get("from")] if operand == "from" else [])]
    return operand in operation and all(isinstance(it, str) and _POINTER.fullmatch(it) for it in pointers)
