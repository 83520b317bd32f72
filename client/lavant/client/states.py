"""The contract's enums, and the words that stand for their values in arguments.

A value that this release does not know is UNSPECIFIED.
"""

from enum import StrEnum
from typing import Any, Literal, Self

from lavant.client._wire.values import READERS
from lavant.v1 import audit_pb2, event_pb2, rule_pb2, run_pb2, score_service_pb2

RunStateName = Literal[
    "queued", "running", "input_required", "succeeded", "failed", "cancelled", "timed_out", "abandoned"
]
RunKindName = Literal["agent", "evaluation"]
StepKindName = Literal["agent", "model_request", "tool", "workflow", "retrieval", "guardrail", "evaluator"]
RoleName = Literal["assistant", "user", "system", "tool"]


class ContractEnum(StrEnum):
    """Base of the contract's enums. Its values equal their words."""

    @classmethod
    def from_number(cls, number: int) -> Self:
        """Return the value of a number of the contract; UNSPECIFIED if this release does not know it."""
        found: Self = _FROM_NUMBERS[cls].get(number, cls("unspecified"))
        return found

    @classmethod
    def numbers(cls) -> dict[str, Any]:
        """Return the numbers of the contract by their words, without UNSPECIFIED."""
        return {str(value): number for number, value in _FROM_NUMBERS[cls].items() if number}


class RunState(ContractEnum):
    """State of a run.

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
        """Whether a run in this state has ended."""
        return bool(self.numbers().get(self, 0) >= run_pb2.RUN_STATE_SUCCEEDED)


class RunKind(ContractEnum):
    """Kind of a run: an agent or an evaluation.

    Example:
        run = await client.runs.create("nightly", kind=RunKind.EVALUATION)
        assert run.kind == "evaluation"
    """

    UNSPECIFIED = "unspecified"
    AGENT = "agent"
    EVALUATION = "evaluation"


class StepKind(ContractEnum):
    """Kind of work that a step is.

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


class Role(ContractEnum):
    """Author of a message.

    Example:
        events = [event async for event in client.runs.stream(run_id)]
        assert [event.data.role for event in events if event.type == "message_started"] == [Role.ASSISTANT]
    """

    UNSPECIFIED = "unspecified"
    ASSISTANT = "assistant"
    USER = "user"
    SYSTEM = "system"
    TOOL = "tool"


class ToolCallOutcome(ContractEnum):
    """Outcome of a tool call.

    Example:
        calls = [call async for call in client.runs.stream(run_id).tool_calls]
        assert [call.outcome for call in calls] == [ToolCallOutcome.SUCCEEDED]
    """

    UNSPECIFIED = "unspecified"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    DENIED = "denied"
    RETRY_REQUESTED = "retry_requested"


class AuditOutcome(ContractEnum):
    """Outcome of the calls that an event of the audit is about.

    Example:
        assert AuditOutcome.DENIED == "denied"
    """

    UNSPECIFIED = "unspecified"
    ALLOWED = "allowed"
    DENIED = "denied"
    FAILED = "failed"


class ScoreStatistic(ContractEnum):
    """Statistic that an alert compares with its threshold.

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


class ScoreTrend(ContractEnum):
    """Change of a score from a baseline, given which way is better.

    Example:
        await client.runs.score(run_id, name="helpful", value=True)
        everything = ScoreFilter(names=["helpful"])
        [change] = await client.scores.compare(everything, baseline=everything)
        assert change.trend is ScoreTrend.TOO_FEW
    """

    UNSPECIFIED = "unspecified"
    REGRESSED = "regressed"
    IMPROVED = "improved"
    UNCHANGED = "unchanged"
    TOO_FEW = "too_few"


_FROM_NUMBERS: dict[type[ContractEnum], dict[int, Any]] = {}


def register(kind: type[ContractEnum], contract: Any) -> None:
    """Read the contract's enum as `kind`, which has all of its values."""
    prefix = contract.DESCRIPTOR.values[0].name.removesuffix("UNSPECIFIED")
    _FROM_NUMBERS[kind] = {contract.Value(f"{prefix}{value.name}"): value for value in kind}
    READERS[contract.DESCRIPTOR.full_name] = kind.from_number


register(RunState, run_pb2.RunState)
register(RunKind, run_pb2.RunKind)
register(StepKind, event_pb2.StepKind)
register(Role, event_pb2.Role)
register(ToolCallOutcome, event_pb2.ToolCallOutcome)
register(AuditOutcome, audit_pb2.AuditOutcome)
register(ScoreStatistic, rule_pb2.ScoreStatistic)
register(ScoreTrend, score_service_pb2.ScoreTrend)
