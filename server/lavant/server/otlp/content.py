"""Parts of a reading, made of what was found: input, output, messages, tool, usage, scores, error."""

from typing import Any, Final, NamedTuple

from lavant.server.otlp.attributes import decoded, json_text
from lavant.server.otlp.conversations import conversation_json, last_question
from lavant.server.otlp.findings import Findings
from lavant.server.otlp.messages import MessageReading, call_of, read_messages
from lavant.server.otlp.vocabularies.vocabulary import Meaning
from lavant.v1.event_pb2 import Evaluator, Score, StepKind, ToolCall, ToolCallOutcome
from lavant.v1.run_pb2 import Error, RunState, TokenUsage

MAX_TEXT: Final = 8_192  # characters of an error or an explanation
MAX_SCORES: Final = 100
_RETRYABLE: Final = frozenset({408, 409, 429})
_SERVER_ERRORS: Final = 500
_CANCELLED: Final = frozenset({"CancelledError", "KeyboardInterrupt", "AbortError"})
_PASSED: Final = {"true": True, "pass": True, "passed": True, "false": False, "fail": False, "failed": False}
_SCORE_PARTS: Final = {
    "name": Meaning.SCORE_NAME,
    "score": Meaning.SCORE_VALUE,
    "label": Meaning.SCORE_LABEL,
    "explanation": Meaning.SCORE_EXPLANATION,
}
# Values of enums: a look-up costs more than all comparisons with them.
_MODEL_REQUEST: Final = StepKind.STEP_KIND_MODEL_REQUEST
_RUNNING: Final = RunState.RUN_STATE_RUNNING
_SUCCEEDED: Final = RunState.RUN_STATE_SUCCEEDED


class ToolReading(NamedTuple):
    """An execution of a tool. The outcome is UNSPECIFIED while it runs."""

    call: ToolCall
    result_json: str
    outcome: "ToolCallOutcome.ValueType"


def tool_of(found: Findings, owner: str, name: str, state: "RunState.ValueType") -> ToolReading:
    """Return the execution of a tool, named `name` unless it says otherwise, with the id `owner` if it has none."""
    arguments = found.first(Meaning.ARGUMENTS, Meaning.INPUT)
    call = call_of(found.values.get(Meaning.TOOL_CALL_ID), found.values.get(Meaning.TOOL_NAME, name), arguments, owner)
    if state == _RUNNING:
        outcome = ToolCallOutcome.TOOL_CALL_OUTCOME_UNSPECIFIED
    elif found.text(Meaning.DECISION) == "reject":
        outcome = ToolCallOutcome.TOOL_CALL_OUTCOME_DENIED
    elif Meaning.RETRY in found.values:
        outcome = ToolCallOutcome.TOOL_CALL_OUTCOME_RETRY_REQUESTED
    elif state == _SUCCEEDED:
        outcome = ToolCallOutcome.TOOL_CALL_OUTCOME_SUCCEEDED
    else:
        outcome = ToolCallOutcome.TOOL_CALL_OUTCOME_FAILED
    return ToolReading(call, json_text(found.first(Meaning.RESULT, Meaning.OUTPUT)), outcome)


def input_of(found: Findings, kind: "StepKind.ValueType") -> str:
    """Return the input of an agent or the messages that a model is given, as JSON text."""
    given = found.first(Meaning.INPUT, Meaning.ARGUMENTS)
    if given is None and Meaning.TRANSCRIPT in found.values:
        given = last_question(decoded(found.values[Meaning.TRANSCRIPT]))
    instructions = found.values.get(Meaning.INSTRUCTIONS) if kind == _MODEL_REQUEST else None
    if given is None and instructions is None:
        return ""
    return conversation_json(given, instructions)


def output_of(found: Findings, kind: "StepKind.ValueType") -> str:
    """Return the output as JSON text: of a model request its messages, of other work what it says to be its output."""
    if kind == _MODEL_REQUEST:
        value = found.first(Meaning.MESSAGES, Meaning.OUTPUT, Meaning.TEXT, Meaning.TOOL_CALLS)
    else:
        value = found.first(Meaning.OUTPUT, Meaning.TEXT, Meaning.MESSAGES, Meaning.RESULT)
    return json_text(value)


def messages_of(found: Findings, owner: str) -> tuple[MessageReading, ...]:
    """Return the messages that a model wrote; see `read_messages`."""
    written = found.first(Meaning.MESSAGES)
    if written is None:
        parts: list[Any] = []
        for meaning, kind in ((Meaning.REASONING, "reasoning"), (Meaning.TEXT, "text")):
            if meaning in found.values:
                parts.append({"type": kind, "content": found.values[meaning]})
        calls = decoded(found.values.get(Meaning.TOOL_CALLS))
        written = {"parts": parts, "tool_calls": calls} if parts or calls else found.values.get(Meaning.OUTPUT)
    return read_messages(written, owner, found.values.get(Meaning.FINISH_REASON)) if written is not None else ()


def scores_of(found: Findings) -> tuple[Score, ...]:
    """Return the results of evaluators: of events, of a list, and of the span itself."""
    scores = [*found.scores, score_of(found)]
    listed = found.values.get(Meaning.SCORES)
    for item in listed if isinstance(listed, list) else []:
        if isinstance(item, dict) and len(scores) <= MAX_SCORES:
            said = Findings()
            for name, value in item.items():
                said.put(_SCORE_PARTS.get(name, Meaning.SCORES), value)
            scores.append(score_of(said))
    return tuple(score for score in scores if score is not None)


def usage_of(found: Findings, model: str, requests: int) -> TokenUsage | None:
    """Return tokens and cost; None if none are known."""
    read, created = found.count(Meaning.CACHE_READ_TOKENS), found.count(Meaning.CACHE_CREATION_TOKENS)
    given = found.count(Meaning.INPUT_TOKENS)
    if not given and Meaning.UNCACHED_INPUT_TOKENS in found.values:
        given = found.count(Meaning.UNCACHED_INPUT_TOKENS) + read + created
    written, reasoned = found.count(Meaning.OUTPUT_TOKENS), found.count(Meaning.REASONING_TOKENS)
    cost = found.number(Meaning.COST)
    if not (given or written or read or created or reasoned) and cost is None:
        return None
    return TokenUsage(
        model=model,
        input_tokens=given,
        output_tokens=written,
        cache_read_input_tokens=read,
        cache_creation_input_tokens=created,
        reasoning_output_tokens=reasoned,
        requests=requests,
        cost_usd=cost,
    )


def score_of(found: Findings) -> Score | None:
    """Return the result of an evaluator; None if it has no name. Its value is a number, else a label, else an error."""
    name = found.name(Meaning.SCORE_NAME)
    if not name:
        return None
    number, label = found.number(Meaning.SCORE_VALUE), found.name(Meaning.SCORE_LABEL)
    reason = found.text(Meaning.SCORE_EXPLANATION)
    score = Score(name=name, explanation=reason[:MAX_TEXT])
    if version := found.name(Meaning.EVALUATOR_VERSION):
        score.evaluator.CopyFrom(Evaluator(name=name, version=version))
    if number is not None and label.lower() in _PASSED and number in (0, 1):
        score.passed = bool(number)
    elif number is not None:
        score.number = number
        score.explanation = score.explanation or label
    elif label.lower() in _PASSED:
        score.passed = _PASSED[label.lower()]
    elif label:
        score.label = label
    else:
        score.error.CopyFrom(described(found, reason, "the evaluator reported no value"))
    return score


def described(found: Findings, message: str, default: str) -> Error:
    """Return the error that was found, with this message if it has none of its own."""
    error_type = found.name(Meaning.ERROR_TYPE)
    said = found.text(Meaning.ERROR_MESSAGE) or message or error_type or default
    return Error(message=said[:MAX_TEXT], type=error_type)


def retryable(status: int) -> bool:
    """Return whether a request that failed with this status of HTTP may succeed when it is repeated."""
    return status in _RETRYABLE or status >= _SERVER_ERRORS


def is_cancelled(error: Error) -> bool:
    """Return whether an error says that somebody stopped the work."""
    return error.type.rpartition(".")[2] in _CANCELLED
