"""Payloads of events, as immutable values.

The fields are named as in the contract, without `_json`: JSON text is decoded. Enums equal their words, durations are
timedelta, times are aware datetimes in UTC. Fields that the producer did not set are None, empty or zero.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from lavant.client.models import ErrorInfo, EvaluationSummary, Usage
from lavant.client.rules import EvaluatorInfo
from lavant.client.scores import Score
from lavant.client.states import AuditOutcome, Role, RunState, StepKind, ToolCallOutcome

_NO_ERROR = ErrorInfo(message="")
_NO_SCORE = Score(name="", value=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationPlan:
    """Plan of an evaluation. `row_count` counts a row once per iteration."""

    dataset: str
    row_count: int
    iterations: int
    evaluators: tuple[EvaluatorInfo, ...]
    rule_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted:
    """The input, version and model of a run; `evaluation` is set for an evaluation.

    With `unordered_steps`, steps are recorded in any order: a step's parent may start later, or never.
    """

    input: Any
    version: str
    model: str
    evaluation: EvaluationPlan | None = None
    unordered_steps: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStateChanged:
    """The new state of a run, which is not terminal, and the reason for people."""

    state: RunState
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFinished:
    """The terminal state of a run, with its output, error, usage and wall time."""

    state: RunState
    output: Any
    error: ErrorInfo | None = None
    usage: Usage | None = None
    duration: timedelta | None = None
    evaluation: EvaluationSummary | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepStarted:
    """A step: its name, kind and input; `attempt` is 1 for the first try, 2 for the first retry."""

    step_id: str
    parent_step_id: str
    name: str
    kind: StepKind
    input: Any
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFinished:
    """The end of a step; `usage` is of this step alone."""

    step_id: str
    state: RunState
    output: Any
    error: ErrorInfo | None = None
    duration: timedelta | None = None
    usage: Usage | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageStarted:
    """A message: who speaks, and which model where a model does."""

    message_id: str
    role: Role
    model: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TextDelta:
    """Text to append to part `part_index` of a message."""

    message_id: str
    part_index: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReasoningDelta:
    """Reasoning to append to part `part_index` of a message."""

    message_id: str
    part_index: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolArgumentsDelta:
    """Text to append to the arguments of a tool call, which are JSON text once they are whole."""

    message_id: str
    part_index: int
    tool_call_id: str
    tool_name: str
    arguments: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCallRequest:
    """A tool call as a model asked for it. Arguments that are not JSON are the model's own text.

    `original_id` is the model's own ID of the call where it differs from `tool_call_id`; empty otherwise.
    """

    tool_call_id: str
    tool_name: str
    arguments: Any
    original_id: str = ""


_NO_CALL = ToolCallRequest(tool_call_id="", tool_name="", arguments=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class MessagePart:
    """One part of a message: its text, its reasoning or a tool call; the other fields are empty."""

    text: str = ""
    reasoning: str = ""
    tool_call: ToolCallRequest | None = None

    @property
    def type(self) -> Literal["text", "reasoning", "tool_call"]:
        """The kind of this part."""
        return "tool_call" if self.tool_call is not None else "reasoning" if self.reasoning else "text"


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageFinished:
    """A whole message, with the reason why it ended and the usage of this message."""

    message_id: str
    role: Role
    parts: tuple[MessagePart, ...]
    finish_reason: str
    usage: Usage | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCallStarted:
    """The tool that is called, and with which arguments."""

    call: ToolCallRequest = _NO_CALL


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolOutputDelta:
    """Text to append to a tool's output."""

    tool_call_id: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCallFinished:
    """The result of a tool call, or its error unless it succeeded."""

    tool_call_id: str
    tool_name: str
    outcome: ToolCallOutcome
    result: Any
    error: ErrorInfo | None = None
    duration: timedelta | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgressReported:
    """Progress of the run; `completed` and `total` are None if they are not known."""

    label: str
    completed: int | None = None
    total: int | None = None
    iteration: int
    usage: Usage | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorReported:
    """An error that did not end the run."""

    error: ErrorInfo = _NO_ERROR


@dataclass(frozen=True, slots=True, kw_only=True)
class StateSnapshot:
    """The whole of a state; `name` is empty for the run's own."""

    name: str
    value: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class StateDelta:
    """A change to a state, as an RFC 6902 JSON Patch; `name` is empty for the run's own."""

    name: str
    patch: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactUpdated:
    """An artifact: where it is (`uri`), or what it holds (`data`), which `append` adds to the earlier content."""

    artifact_id: str
    name: str
    media_type: str
    uri: str = ""
    data: bytes | None = None
    append: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class InputRequested:
    """A question to people or another system; an answer must match the JSON Schema and come before `expire_time`."""

    input_id: str
    prompt: str
    schema: Any
    tool_call_ids: tuple[str, ...]
    expire_time: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class InputResolved:
    """The answer to an earlier question."""

    input_id: str
    answer: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Custom:
    """A producer's own event, under a dotted name."""

    name: str
    value: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class RowFinished:
    """A row of an evaluation: what its task returned, and what the evaluators said. `error` is the task's own.

    A row of a rule's results has the rule's ID, the name and end of the run that was scored, and the scores' labels.
    """

    row_id: str
    iteration: int
    subject_run_id: str
    scores: tuple[Score, ...]
    error: ErrorInfo | None = None
    input: Any
    output: Any
    expected_output: Any
    duration: timedelta | None = None
    metrics: Mapping[str, float]
    rule_id: str
    subject_name: str
    subject_time: datetime | None = None
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreRecorded:
    """A score on another run, the rule that sampled that run, and the labels of rule and worker."""

    subject_run_id: str
    score: Score = _NO_SCORE
    rule_id: str
    subject_name: str
    subject_time: datetime | None = None
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertChanged:
    """An alert that fires, or no longer does; `value` is what was compared with `threshold`, over `count` scores.

    `error_count` is how many scores of the window are failures of their evaluators.
    """

    rule_id: str
    alert: str
    firing: bool
    value: float
    threshold: float
    count: int
    error_count: int
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRecorded:
    """Calls of one principal to one method: refused ones, or administrative ones, and what became of them.

    `count` calls came since `first_time`.
    """

    outcome: AuditOutcome
    reason: str
    principal: str
    credential_id: str
    peer: str
    protocol: str
    method: str
    resources: tuple[str, ...]
    count: int
    first_time: datetime | None = None
    incident: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownPayload:
    """A payload of a newer contract: the number of its field in Event, and its protobuf bytes.

    `field_number` is 0 for an event without a payload.
    """

    field_number: int = 0
    content: bytes = b""
