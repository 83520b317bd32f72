"""The UI message stream of the AI SDK: https://ai-sdk.dev/docs/ai-sdk-ui/stream-protocol.

All of a run is one message of an assistant. Readers refuse deltas and ends of parts that did not start.
"""

from typing import ClassVar

from lavant.contract.json_text import quote, to_json, to_line, to_object
from lavant.server.http.formats.projection import CALL, Part, Projection, Texts, word
from lavant.v1.event_pb2 import Event, StepKind, StepStarted, ToolCall, ToolCallOutcome
from lavant.v1.run_pb2 import RunFinished, RunState

DONE = "[DONE]"


class AiSdkProjection(Projection):
    """Projection to chunks. What no chunk is for are parts of type `data-` and the event's type.

    Tool calls are marked as executed by the provider: the agent executes them, not the page.
    """

    headers: ClassVar[dict[str, str]] = {"x-vercel-ai-ui-message-stream": "v1"}

    @staticmethod
    def broken_off(reason: str, message: str) -> list[str]:
        """Return an error: a stream that merely ends is taken for a complete message."""
        return [to_object(type='"error"', errorText=quote(f"{reason}: {message}")), DONE]

    def started(self) -> Texts:
        """Return the start of the message, with the run's ID: a stream from the start replaces what there is of it."""
        yield to_object(type='"start"', messageId=quote(self.run_id))

    def finished(self, end: RunFinished) -> Texts:
        """Return `finish` of a run that succeeded, `abort` of one that was cancelled, `error` of another one."""
        if end.state == RunState.RUN_STATE_SUCCEEDED:
            output = to_line(end.output_json) or None
            usage = to_json(end.usage) if end.HasField("usage") else None
            metadata = to_object(output=output, usage=usage) if output or usage else None
            yield to_object(type='"finish"', finishReason='"stop"', messageMetadata=metadata)
        elif end.state == RunState.RUN_STATE_CANCELLED:
            yield to_object(type='"abort"', reason=quote(end.error.message) if end.error.message else None)
        else:
            yield to_object(type='"error"', errorText=quote(end.error.message or "the run failed"))
        yield DONE

    def open_part(self, part: Part, tool_name: str = "") -> Texts:
        """Return the start of text, of reasoning or of a tool's input."""
        if part.kind == CALL:
            yield to_object(
                type='"tool-input-start"',
                toolCallId=quote(part.call_id),
                toolName=quote(tool_name),
                providerExecuted="true",
            )
        else:
            yield f'{{"type": "{part.kind}-start", "id": {quote(part.id)}}}'

    def delta(self, part: Part, text: str) -> Texts:
        """Return more of a part."""
        if part.kind == CALL:
            call_id = quote(part.call_id)
            yield f'{{"type": "tool-input-delta", "toolCallId": {call_id}, "inputTextDelta": {quote(text)}}}'
        else:
            yield f'{{"type": "{part.kind}-delta", "id": {quote(part.id)}, "delta": {quote(text)}}}'

    def close_part(self, part: Part) -> Texts:
        """Return the end of text or reasoning. That of a tool's input is `tool-input-available`."""
        if part.kind != CALL:
            yield f'{{"type": "{part.kind}-end", "id": {quote(part.id)}}}'

    def call(self, call: ToolCall, _message_id: str, _sent: int | None) -> Texts:
        """Return a tool's whole input."""
        yield to_object(
            type='"tool-input-available"',
            toolCallId=quote(call.tool_call_id),
            toolName=quote(call.tool_name),
            input=to_line(call.arguments_json) or "{}",
            providerExecuted="true",
        )

    def result(self, event: Event) -> Texts:
        """Return the output of a tool, its error, or that it was denied."""
        finished = event.tool_call_finished
        call_id = quote(finished.tool_call_id)
        if finished.outcome == ToolCallOutcome.TOOL_CALL_OUTCOME_SUCCEEDED:
            output = to_line(finished.result_json) or "null"
            yield to_object(type='"tool-output-available"', toolCallId=call_id, output=output, providerExecuted="true")
        elif finished.outcome == ToolCallOutcome.TOOL_CALL_OUTCOME_DENIED:
            yield to_object(type='"tool-output-denied"', toolCallId=call_id)
        else:
            error = quote(finished.error.message or "the tool failed")
            yield to_object(type='"tool-output-error"', toolCallId=call_id, errorText=error, providerExecuted="true")

    def start_step(self, step: StepStarted) -> Texts:
        """Return the step as data that its end replaces: `start-step` and `finish-step` cannot overlap."""
        yield _step(step, "running")

    def finish_step(self, step: StepStarted, state: str) -> Texts:
        """Return the step with how it ended, or that it did not."""
        yield _step(step, state or "unfinished")

    def other(self, event: Event) -> Texts:
        """Return data: the message of the contract, or the value of a custom event or state."""
        payload = event.WhichOneof("payload") or ""
        part_id, is_transient = "", payload == "tool_output_delta"
        name, data = payload.replace("_", "-"), ""
        match payload:
            case "custom":
                name, data = event.custom.name, to_line(event.custom.value_json) or "null"
            case "state_snapshot":
                part_id, data = event.state_snapshot.name or "state", to_line(event.state_snapshot.value_json) or "null"
            case "progress_reported" | "run_state_changed":  # the latest replaces those before
                part_id = payload
            case "input_requested" | "input_resolved":
                part_id = getattr(event, payload).input_id
            case "artifact_updated" if not event.artifact_updated.append:
                part_id = event.artifact_updated.artifact_id
        yield to_object(
            type=quote(f"data-{name}"),
            id=quote(part_id) if part_id else None,
            data=data or to_json(getattr(event, payload)),
            transient="true" if is_transient else None,
        )


def _step(step: StepStarted, state: str) -> str:
    data = to_object(
        name=quote(step.name),
        kind=quote(word(StepKind, step.kind, "STEP_KIND_")),
        parent=quote(step.parent_step_id) if step.parent_step_id else None,
        attempt=str(step.attempt or 1),
        state=quote(state),
    )
    return to_object(type='"data-step"', id=quote(step.step_id), data=data)
