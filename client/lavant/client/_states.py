"""The contract's enums, as people read them, and the words by which people pass them.

A value that this release does not know is UNSPECIFIED.
"""

from enum import StrEnum
from typing import Literal

from lavant.v1 import event_pb2, rule_pb2, run_pb2, score_service_pb2

RunStateName = Literal[
    "queued", "running", "input_required", "succeeded", "failed", "cancelled", "timed_out", "abandoned"
]
RunKindName = Literal["agent", "evaluation"]
StepKindName = Literal["agent", "model_request", "tool", "workflow", "retrieval", "guardrail", "evaluator"]
RoleName = Literal["assistant", "user", "system", "tool"]


class RunState(StrEnum):
    """Where a run stands.

    Example:
        run = await client.runs.get(run_id)
        assert run.state is RunState.SUCCEEDED
        assert run.state == "succeeded" and run.state.is_terminal
    """

    UNSPECIFIED = "unspecified"
    QUEUED = "queued"
    RUNNING = "running"
    INPUT_REQUIRED = "input_required"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"
    ABANDONED = "abandoned"

    @property
    def is_terminal(self) -> bool:
        """Whether the run has ended."""
        return run_pb2.RunState.Value(f"RUN_STATE_{self.name}") >= run_pb2.RunState.RUN_STATE_SUCCEEDED


class RunKind(StrEnum):
    """What a run executes.

    Example:
        run = await client.runs.create("nightly", kind=RunKind.EVALUATION)
        assert run.kind == "evaluation"
    """

    UNSPECIFIED = "unspecified"
    AGENT = "agent"
    EVALUATION = "evaluation"


class StepKind(StrEnum):
    """What kind of work a step is.

    Example:
        recording = await client.runs.stream(run_id).collect()
        assert recording.steps[0].kind is StepKind.WORKFLOW
    """

    UNSPECIFIED = "unspecified"
    AGENT = "agent"
    MODEL_REQUEST = "model_request"
    TOOL = "tool"
    WORKFLOW = "workflow"
    RETRIEVAL = "retrieval"
    GUARDRAIL = "guardrail"
    EVALUATOR = "evaluator"


class Role(StrEnum):
    """Who speaks in a message.

    Example:
        events = [event async for event in client.runs.stream(run_id)]
        assert [event.data.role for event in events if event.type == "message_started"] == [Role.ASSISTANT]
    """

    UNSPECIFIED = "unspecified"
    ASSISTANT = "assistant"
    USER = "user"
    SYSTEM = "system"
    TOOL = "tool"


class ToolCallOutcome(StrEnum):
    """How a tool call ended.

    Example:
        calls = [call async for call in client.runs.stream(run_id).tool_calls]
        assert [call.outcome for call in calls] == [ToolCallOutcome.SUCCEEDED]
    """

    UNSPECIFIED = "unspecified"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    DENIED = "denied"
    RETRY_REQUESTED = "retry_requested"


class ScoreStatistic(StrEnum):
    """What an alert compares with its threshold.

    Example:
        alert = Alert(name="harsh", statistic=ScoreStatistic.PASS_RATE, below=0.9, window=timedelta(hours=1))
        rule = await client.rules.create("quality", alerts=[alert])
        assert rule.alerts[0].statistic == "pass_rate"
    """

    UNSPECIFIED = "unspecified"
    MEAN = "mean"
    PASS_RATE = "pass_rate"  # noqa: S105
    ERROR_RATE = "error_rate"
    COUNT = "count"


class ScoreVerdict(StrEnum):
    """What has become of a score, taken as one of which more is better.

    Example:
        await client.runs.score(run_id, name="helpful", value=True)
        everything = ScoreFilter(names=["helpful"])
        [change] = await client.scores.compare(everything, baseline=everything)
        assert change.verdict is ScoreVerdict.TOO_FEW
    """

    UNSPECIFIED = "unspecified"
    REGRESSED = "regressed"
    IMPROVED = "improved"
    UNCHANGED = "unchanged"
    TOO_FEW = "too_few"


def state_of(number: "run_pb2.RunState.ValueType") -> RunState:
    """Name a run's state."""
    return _STATES.get(number, RunState.UNSPECIFIED)


def kind_of(number: "run_pb2.RunKind.ValueType") -> RunKind:
    """Name a run's kind."""
    return _KINDS.get(number, RunKind.UNSPECIFIED)


def step_kind_of(number: "event_pb2.StepKind.ValueType") -> StepKind:
    """Name a step's kind."""
    return _STEP_KINDS.get(number, StepKind.UNSPECIFIED)


def role_of(number: "event_pb2.Role.ValueType") -> Role:
    """Name who speaks."""
    return _ROLES.get(number, Role.UNSPECIFIED)


def outcome_of(number: "event_pb2.ToolCallOutcome.ValueType") -> ToolCallOutcome:
    """Name a tool call's outcome."""
    return _OUTCOMES.get(number, ToolCallOutcome.UNSPECIFIED)


def statistic_of(number: "rule_pb2.ScoreStatistic.ValueType") -> ScoreStatistic:
    """Name what an alert compares."""
    return _STATISTICS.get(number, ScoreStatistic.UNSPECIFIED)


def verdict_of(number: "score_service_pb2.ScoreVerdict.ValueType") -> ScoreVerdict:
    """Name what has become of a score."""
    return _VERDICTS.get(number, ScoreVerdict.UNSPECIFIED)


_STATES = {run_pb2.RunState.Value(f"RUN_STATE_{state.name}"): state for state in RunState}
_KINDS = {run_pb2.RunKind.Value(f"RUN_KIND_{kind.name}"): kind for kind in RunKind}
_STEP_KINDS = {event_pb2.StepKind.Value(f"STEP_KIND_{kind.name}"): kind for kind in StepKind}
_ROLES = {event_pb2.Role.Value(f"ROLE_{role.name}"): role for role in Role}
_OUTCOMES = {
    event_pb2.ToolCallOutcome.Value(f"TOOL_CALL_OUTCOME_{outcome.name}"): outcome for outcome in ToolCallOutcome
}
_STATISTICS = {rule_pb2.ScoreStatistic.Value(f"SCORE_STATISTIC_{one.name}"): one for one in ScoreStatistic}
_VERDICTS = {score_service_pb2.ScoreVerdict.Value(f"SCORE_VERDICT_{one.name}"): one for one in ScoreVerdict}
