"""Projections of events to the formats of other front ends: complete, and valid whatever the log."""

import json
from collections import Counter
from typing import Any

import pytest
from google.protobuf.json_format import ParseDict

from lavant.client._reading.projections import TextProjection
from lavant.client.events import wrap
from lavant.server.http.formats import FORMATS
from lavant.server.http.formats.projection import LEFT_OUT, RULES
from lavant.v1.event_pb2 import Event
from lavant.v1.run_pb2 import RunState
from server.http.front_ends import AgUiFrontEnd, front_end, shown
from support.any_log import any_log
from support.events import custom, message_started, run_finished, run_started, step_finished, text_delta

EACH_FORMAT = pytest.mark.parametrize("name", FORMATS)


def made(**payload: Any) -> Event:
    """Return an event with a payload in its JSON form."""
    return ParseDict(payload, Event())


def test_every_type_of_event_is_sent_or_left_out() -> None:
    known = {field.name for field in Event.DESCRIPTOR.oneofs_by_name["payload"].fields}
    assert {*RULES, *LEFT_OUT} == known
    assert not LEFT_OUT & RULES.keys()


@EACH_FORMAT
def test_front_end_accepts_any_log(name: str) -> None:
    ends = Counter(front_end(name, shown(name, any_log(seed))).end for seed in range(120))
    assert len(ends) == len({"RUN_FINISHED", "RUN_ERROR"} if name == "ag-ui" else {"finish", "abort", "error"})


@EACH_FORMAT
def test_text_is_that_of_the_client_with_and_without_deltas(name: str) -> None:
    for seed in range(120):
        log = any_log(seed)
        whole = TextProjection()
        assert front_end(name, shown(name, log)).text == "".join(whole.add(wrap(event)) for event in log), seed
        rest = [event for event in log if not event.HasField("text_delta")]
        without = TextProjection()
        assert front_end(name, shown(name, rest)).text == "".join(without.add(wrap(event)) for event in rest), seed


def test_arguments_are_whole_whichever_part_came_as_deltas() -> None:
    for seed in range(120):
        log, reader = any_log(seed), AgUiFrontEnd()
        for text in shown("ag-ui", log):
            reader.read(json.loads(text))
        for event in log:
            call = event.tool_call_started.call
            assert reader.arguments.get(call.tool_call_id, "") == call.arguments_json, seed


def conversation() -> list[Event]:
    """Return a run that thinks, calls a tool, whose arguments come in pieces, and answers."""
    call = {"tool_call_id": "c", "tool_name": "search", "arguments_json": '{"q": "Oslo"}'}
    first = {"message_id": "m", "parts": [{"reasoning": "Hm."}, {"tool_call": call}]}
    result = {"tool_call_id": "c", "outcome": "TOOL_CALL_OUTCOME_SUCCEEDED", "result_json": '{"celsius": -4}'}
    piece = {"message_id": "m", "part_index": 1, "tool_call_id": "c"}
    events = [
        run_started(),
        message_started("m"),
        made(reasoning_delta={"message_id": "m", "text": "Hm."}),
        made(tool_arguments_delta={**piece, "tool_name": "search", "arguments": '{"q": '}),
        made(tool_arguments_delta={**piece, "arguments": '"Oslo"}'}),
        made(message_finished=first),
        made(step_started={"step_id": "s", "name": "search", "kind": "STEP_KIND_TOOL"}),
        made(tool_call_started={"call": call}),
        made(tool_call_finished=result),
        step_finished(),
        message_started("n"),
        text_delta("It is ", "n"),
        made(message_finished={"message_id": "n", "parts": [{"text": "It is cold."}]}),
        custom(value_json='{"a": null}'),
        run_finished(),
    ]
    for number, event in enumerate(events, 1):
        event.event_id = f"event-{number}"
    return events


GOLDEN = {
    "ag-ui": r"""
{"type": "RUN_STARTED", "threadId": "talk", "runId": "run"}
{"type": "REASONING_START", "messageId": "m.0.reasoning"}
{"type": "REASONING_MESSAGE_START", "messageId": "m.0.reasoning", "role": "reasoning"}
{"type": "REASONING_MESSAGE_CONTENT", "messageId": "m.0.reasoning", "delta": "Hm."}
{"type": "REASONING_MESSAGE_END", "messageId": "m.0.reasoning"}
{"type": "REASONING_END", "messageId": "m.0.reasoning"}
{"type": "TOOL_CALL_START", "toolCallId": "c", "toolCallName": "search", "parentMessageId": "m"}
{"type": "TOOL_CALL_ARGS", "toolCallId": "c", "delta": "{\"q\": "}
{"type": "TOOL_CALL_ARGS", "toolCallId": "c", "delta": "\"Oslo\"}"}
{"type": "TOOL_CALL_END", "toolCallId": "c"}
{"type": "STEP_STARTED", "stepName": "search"}
{"type": "TOOL_CALL_RESULT", "messageId": "event-9", "toolCallId": "c", "content": "{\"celsius\": -4}", "role": "tool"}
{"type": "STEP_FINISHED", "stepName": "search"}
{"type": "TEXT_MESSAGE_START", "messageId": "n", "role": "assistant"}
{"type": "TEXT_MESSAGE_CONTENT", "messageId": "n", "delta": "It is "}
{"type": "TEXT_MESSAGE_CONTENT", "messageId": "n", "delta": "cold."}
{"type": "TEXT_MESSAGE_END", "messageId": "n"}
{"type": "CUSTOM", "name": "acme.note", "value": {"a": null}}
{"type": "RUN_FINISHED", "threadId": "talk", "runId": "run", "result": "cold"}
""",
    "ai-sdk": r"""
{"type": "start", "messageId": "run"}
{"type": "reasoning-start", "id": "m.0"}
{"type": "reasoning-delta", "id": "m.0", "delta": "Hm."}
{"type": "reasoning-end", "id": "m.0"}
{"type": "tool-input-start", "toolCallId": "c", "toolName": "search", "providerExecuted": true}
{"type": "tool-input-delta", "toolCallId": "c", "inputTextDelta": "{\"q\": "}
{"type": "tool-input-delta", "toolCallId": "c", "inputTextDelta": "\"Oslo\"}"}
{"type": "tool-input-available", "toolCallId": "c", "toolName": "search", "input": INPUT, "providerExecuted": true}
{"type": "data-step", "id": "s", "data": {"name": "search", "kind": "tool", "attempt": 1, "state": "running"}}
{"type": "tool-output-available", "toolCallId": "c", "output": {"celsius": -4}, "providerExecuted": true}
{"type": "data-step", "id": "s", "data": {"name": "search", "kind": "tool", "attempt": 1, "state": "succeeded"}}
{"type": "text-start", "id": "n.0"}
{"type": "text-delta", "id": "n.0", "delta": "It is "}
{"type": "text-delta", "id": "n.0", "delta": "cold."}
{"type": "text-end", "id": "n.0"}
{"type": "data-acme.note", "data": {"a": null}}
{"type": "finish", "finishReason": "stop", "messageMetadata": {"output": "cold"}}
[DONE]
""",
}  # fmt: skip


@EACH_FORMAT
def test_conversation_is_sent_in_the_format(name: str) -> None:
    assert shown(name, conversation()) == GOLDEN[name].replace("INPUT", '{"q": "Oslo"}').strip().split("\n")


PATCH = '[{"op": "add", "path": "/a", "value": 1}]'


@pytest.mark.parametrize(
    ("event", "ag_ui", "ai_sdk"),
    [
        (
            made(progress_reported={"label": "rows", "completed": 1}),
            {"type": "CUSTOM", "name": "lavant.progress_reported", "value": {"label": "rows", "completed": "1"}},
            {"type": "data-progress-reported", "id": "progress_reported", "data": {"label": "rows", "completed": "1"}},
        ),
        (
            made(state_snapshot={"value_json": '{"a": 1}'}),
            {"type": "STATE_SNAPSHOT", "snapshot": {"a": 1}},
            {"type": "data-state-snapshot", "id": "state", "data": {"a": 1}},
        ),
        (
            made(state_delta={"patch_json": PATCH}),
            {"type": "STATE_DELTA", "delta": json.loads(PATCH)},
            {"type": "data-state-delta", "data": {"patch_json": PATCH}},
        ),
        (
            made(state_delta={"patch_json": "{}"}),  # no patch
            {"type": "CUSTOM", "name": "lavant.state_delta", "value": {"patch_json": "{}"}},
            {"type": "data-state-delta", "data": {"patch_json": "{}"}},
        ),
        (
            made(input_requested={"input_id": "i", "prompt": "May I?"}),
            {"type": "CUSTOM", "name": "lavant.input_requested", "value": {"input_id": "i", "prompt": "May I?"}},
            {"type": "data-input-requested", "id": "i", "data": {"input_id": "i", "prompt": "May I?"}},
        ),
        (
            made(tool_output_delta={"tool_call_id": "c", "text": "1"}),
            {"type": "CUSTOM", "name": "lavant.tool_output_delta", "value": {"tool_call_id": "c", "text": "1"}},
            {"type": "data-tool-output-delta", "data": {"tool_call_id": "c", "text": "1"}, "transient": True},
        ),
    ],
)
def test_other_events_are_custom_or_data(event: Event, ag_ui: dict[str, Any], ai_sdk: dict[str, Any]) -> None:
    assert [json.loads(shown(name, [event])[0]) for name in FORMATS] == [ag_ui, ai_sdk]


@pytest.mark.parametrize(
    ("outcome", "ag_ui", "ai_sdk"),
    [("FAILED", "no", "tool-output-error"), ("RETRY_REQUESTED", "no", "tool-output-error"),
     ("DENIED", "no", "tool-output-denied")],
)  # fmt: skip
def test_call_without_result_is_sent_with_its_error(outcome: str, ag_ui: str, ai_sdk: str) -> None:
    event = made(
        tool_call_finished={"tool_call_id": "c", "outcome": f"TOOL_CALL_OUTCOME_{outcome}", "error": {"message": "no"}}
    )
    sent = [json.loads(shown(name, [event])[0]) for name in FORMATS]
    assert (sent[0]["content"], sent[0]["metadata"]) == (ag_ui, {"outcome": outcome.lower()})
    assert (sent[1]["type"], sent[1].get("errorText", "no")) == (ai_sdk, "no")


@pytest.mark.parametrize("state", ["FAILED", "CANCELLED", "TIMED_OUT", "ABANDONED"])
def test_run_that_did_not_succeed_does_not_end_as_one_that_did(state: str) -> None:
    event = run_finished(RunState.Value(f"RUN_STATE_{state}"))
    ag_ui, ai_sdk = [json.loads(shown(name, [event])[0]) for name in FORMATS]
    if state == "CANCELLED":
        assert (ag_ui["type"], ag_ui["outcome"]) == ("RUN_FINISHED", {"type": "cancelled"})
        assert ai_sdk == {"type": "abort", "reason": "it broke"}
    else:
        assert ag_ui == {"type": "RUN_ERROR", "message": "it broke", "code": state}
        assert ai_sdk == {"type": "error", "errorText": "it broke"}
