"""Builders of events as a client reads them: steps, and what is said and called in them."""

from lavant.client import Event, Usage
from lavant.client._publishing import payloads as _payloads
from lavant.client._publishing.payloads import MessageDraft
from lavant.client.events import wrap
from lavant.v1 import event_pb2
from lavant.v1.event_pb2 import Role


def began(step: str, parent: str = "", attempt: int = 1) -> Event:
    """A step begins, named like its id in capitals."""
    return wrap(_payloads.step_started(step, parent, step.upper(), event_pb2.STEP_KIND_WORKFLOW, {"q": 1}, attempt))


def ended(step: str, parent: str = "", usage: Usage | None = None, error: BaseException | None = None) -> Event:
    """A step ends after half a second; well, unless there is an error."""
    return wrap(_payloads.step_finished(step, parent, "out", error, usage, 0.5))


def said(step: str, text: str, message_id: str = "", role: "Role.ValueType" = Role.ROLE_ASSISTANT) -> list[Event]:
    """A message: its start, its first letter, the others, its end."""
    draft = MessageDraft(message_id or f"{step}:{text}", role)
    return _within(step, draft.start(), draft.text(text[:1]), draft.text(text[1:]), draft.finish())


def called(step: str, call_id: str) -> list[Event]:
    """A call of a tool: its start, its end."""
    call = _payloads.tool_call(call_id, "look", {"n": 1})
    finished = _payloads.tool_call_finished(call, event_pb2.TOOL_CALL_OUTCOME_SUCCEEDED, 1)
    return _within(step, _payloads.tool_call_started(call), finished)


def _within(step: str, *protos: event_pb2.Event) -> list[Event]:
    for proto in protos:
        proto.step_id = step
    return [wrap(proto) for proto in protos]
