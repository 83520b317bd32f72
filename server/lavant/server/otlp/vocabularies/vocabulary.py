"""Vocabulary: a table that says which attributes of spans and log records have which meaning."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from lavant.v1.event_pb2 import StepKind


class Meaning(StrEnum):
    """Meaning of an attribute. How its value is decoded depends on the meaning alone."""

    AGENT_NAME = "agent_name"
    VERSION = "version"  # of the agent
    MODEL = "model"
    CONVERSATION = "conversation"
    TURN = "turn"  # ID of the question that the work belongs to
    REQUEST = "request"  # ID of a request to a model, which several records may be about
    NAME = "name"  # for people, instead of the span's own
    SPAN_TYPE = "span_type"  # "pending_span" if a span only announces another one
    REQUESTED = "requested"  # whether the application asks for a run of the trace

    INPUT = "input"  # any JSON or text: the messages that a model is given, or the input of an agent or a tool
    INSTRUCTIONS = "instructions"
    OUTPUT = "output"  # any JSON or text
    TRANSCRIPT = "transcript"  # messages of a whole run, those that models wrote included
    EVENTS = "events"  # a list of events, each as `gen_ai.choice` or the like has it
    MESSAGES = "messages"  # that a model wrote; their shapes are those of `messages.py`
    TEXT = "text"  # of the single message that a model wrote, if its parts are separate attributes
    REASONING = "reasoning"
    TOOL_CALLS = "tool_calls"
    FINISH_REASON = "finish_reason"  # or a list of them, one per message

    TOOL_NAME = "tool_name"
    TOOL_CALL_ID = "tool_call_id"
    ARGUMENTS = "arguments"
    RESULT = "result"
    RETRY = "retry"  # present if the tool asked the model to call it again
    SUCCESS = "success"  # whether the work succeeded, where no status says so
    DECISION = "decision"  # "accept" or "reject": whether a tool may be executed
    DECIDER = "decider"  # who decided so
    STATUS_CODE = "status_code"  # of a failed request
    ATTEMPT = "attempt"  # number of the attempt, from 1
    DURATION_MS = "duration_ms"

    INPUT_TOKENS = "input_tokens"  # cached ones included
    UNCACHED_INPUT_TOKENS = "uncached_input_tokens"
    OUTPUT_TOKENS = "output_tokens"
    CACHE_READ_TOKENS = "cache_read_input_tokens"
    CACHE_CREATION_TOKENS = "cache_creation_input_tokens"
    REASONING_TOKENS = "reasoning_output_tokens"
    COST = "cost_usd"

    ERROR_TYPE = "error_type"
    ERROR_MESSAGE = "error_message"

    SCORES = "scores"  # a list, of which each item has the meanings below
    SCORE_NAME = "score_name"
    SCORE_VALUE = "score_value"
    SCORE_LABEL = "score_label"
    SCORE_EXPLANATION = "score_explanation"
    EVALUATOR_VERSION = "evaluator_version"


class EventKind(StrEnum):
    """Kind of a span's event or of a log record, by its name."""

    DETAILS = "details"  # its attributes mean what the span's own would
    SCORE = "score"
    EXCEPTION = "exception"
    QUESTION = "question"  # a person asks: the input of a run
    MODEL_REQUEST = "model_request"  # has ended
    MODEL_ERROR = "model_error"  # a request has failed
    TOOL = "tool"  # has ended
    DECISION = "decision"  # whether a tool may be executed
    OTHER = "other"  # an agent's, without a meaning of its own


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The names that one convention or library writes, and their meanings.

    Several vocabularies may apply to one span. What one of them says twice counts as its first attribute says, what
    several say as the first vocabulary says.
    """

    name: str
    # If not empty, the vocabulary is that of spans and records only whose names begin so.
    prefix: str = ""
    # Attributes by meaning.
    attributes: Mapping[Meaning, tuple[str, ...]] = field(default_factory=dict)
    # Prefixes of attributes that hold one part of a list each: `llm.input_messages.0.message.role`.
    lists: Mapping[str, Meaning] = field(default_factory=dict)
    # Attributes that say the kind of work by their value, in lower case. A span that has one is an agent's, whatever
    # the value.
    kinds: Mapping[str, Mapping[str, "StepKind.ValueType"]] = field(default_factory=dict)
    # Attributes whose presence implies a kind, if none of those above is there.
    implied: Mapping[str, "StepKind.ValueType"] = field(default_factory=dict)
    # Names of spans that say their kind.
    span_names: Mapping[str, "StepKind.ValueType"] = field(default_factory=dict)
    # Instrumentation scopes whose spans are all an agent's, with the kind of those that say none.
    scopes: Mapping[str, "StepKind.ValueType"] = field(default_factory=dict)
    # Names of a span's events and of log records.
    events: Mapping[str, EventKind] = field(default_factory=dict)
    # Names of those that are one message each, by the role of its author: of what a model is given, and of what it
    # wrote. The message is the body of a record, or the attributes of an event.
    given: Mapping[str, str] = field(default_factory=dict)
    written: Mapping[str, str] = field(default_factory=dict)
