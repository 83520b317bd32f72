"""What people read: immutable values, with JSON decoded and times as datetime."""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from itertools import zip_longest
from typing import Any, Self

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from lavant.client import _json
from lavant.client._frozen import Frozen
from lavant.client._states import RunKind, RunState, StepKind, ToolCallOutcome, kind_of, state_of
from lavant.contract.text import to_text
from lavant.v1 import event_pb2, event_service_pb2, run_pb2

_FIRST_TIME, _LAST_TIME = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


class FieldViolation(Frozen):
    """A request's field that breaks a rule: its path, and the rule.

    Example:
        try:
            await client.runs.create("")
        except InvalidField as error:
            [violation] = error.violations
            assert (violation.path, violation.description) == ("name", "must be 1 to 256 characters long")
    """

    path: str
    description: str


class ErrorInfo(Frozen):
    """What went wrong, for people and for programs: `message` for the former, `type` is the exception's class.

    `retryable` tells whether the same may succeed if it is tried again.

    Example:
        run = await client.runs.get(failed_id)
        assert (run.result.error.type, run.result.error.message) == ("LookupError", "no such city")
    """

    message: str
    type: str = ""
    retryable: bool = False
    details: Any = None

    @classmethod
    def from_proto(cls, proto: run_pb2.Error) -> Self:
        """Read it from the contract's Error."""
        return cls(
            message=proto.message,
            type=proto.type,
            retryable=proto.retryable,
            details=_json.decode(proto.details_json),
        )

    def to_proto(self) -> run_pb2.Error:
        """Write it as the contract's Error."""
        return run_pb2.Error(
            message=to_text(self.message),
            type=to_text(self.type),
            retryable=self.retryable,
            details_json=_json.encode_optional(self.details),
        )


class Usage(Frozen):
    """Tokens and cost, named as OpenTelemetry's gen_ai.usage attributes.

    Example:
        used = Usage(input_tokens=812, output_tokens=64) + Usage(input_tokens=40, output_tokens=6, cost_usd=0.01)
        assert (used.total_tokens, used.cost_usd) == (922, 0.01)
    """

    model: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_input_tokens: int = 0
    cache_creation_input_tokens: int = 0
    reasoning_output_tokens: int = 0
    requests: int = 0
    cost_usd: float | None = None

    @property
    def total_tokens(self) -> int:
        """What went in and came out."""
        return self.input_tokens + self.output_tokens

    @classmethod
    def from_proto(cls, proto: run_pb2.TokenUsage) -> Self:
        """Read it from the contract's TokenUsage."""
        return cls(**{field.name: value for field, value in proto.ListFields()})

    def __add__(self, other: "Usage") -> "Usage":
        """Add two usages: a cost known of one is the cost of both, and a model is named if it is the only one."""
        costs = [cost for cost in (self.cost_usd, other.cost_usd) if cost is not None]
        models = {self.model, other.model} - {""}
        return Usage(
            model=models.pop() if len(models) == 1 else "",
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cache_read_input_tokens=self.cache_read_input_tokens + other.cache_read_input_tokens,
            cache_creation_input_tokens=self.cache_creation_input_tokens + other.cache_creation_input_tokens,
            reasoning_output_tokens=self.reasoning_output_tokens + other.reasoning_output_tokens,
            requests=self.requests + other.requests,
            cost_usd=sum(costs) if costs else None,
        )

    def to_proto(self) -> run_pb2.TokenUsage:
        """Write it as the contract's TokenUsage."""
        return run_pb2.TokenUsage(**self.model_dump(exclude_none=True))


class EvaluationSummary(Frozen):
    """What an evaluation's rows add up to.

    A row whose task or one of whose evaluators failed passes nothing: `accuracy` and the means of verdicts count it as
    not passed. Means of numbers are those of the rows that have one. `score_counts` is the number of rows with a number
    or a verdict, `error_counts` that of failed rows without, both by the score's name.

    Example:
        summary = EvaluationSummary(rows_succeeded=9, rows_failed=1, mean_scores={"correctness": 0.8}, accuracy=0.9)
        assert summary.mean_scores["correctness"] >= 0.8
    """

    rows_succeeded: int
    rows_failed: int
    mean_scores: Mapping[str, float]
    accuracy: float | None = None
    score_counts: Mapping[str, int] = {}
    error_counts: Mapping[str, int] = {}

    @classmethod
    def from_proto(cls, proto: run_pb2.EvaluationSummary) -> Self:
        """Read it from the contract's EvaluationSummary."""
        return cls(
            rows_succeeded=proto.rows_succeeded,
            rows_failed=proto.rows_failed,
            mean_scores=dict(proto.mean_scores),
            accuracy=proto.accuracy if proto.HasField("accuracy") else None,
            score_counts=dict(proto.score_counts),
            error_counts=dict(proto.error_counts),
        )

    def to_proto(self) -> run_pb2.EvaluationSummary:
        """Write it as the contract's EvaluationSummary."""
        return run_pb2.EvaluationSummary(**self.model_dump())


class RunResult(Frozen):
    """How a run ended.

    Example:
        result = await client.runs.stream(run_id).result()
        assert (result.state, result.output) == ("succeeded", {"answer": "cold"})
    """

    run_id: str
    state: RunState
    output: Any = None
    error: ErrorInfo | None = None
    usage: Usage | None = None
    duration: timedelta | None = None
    evaluation: EvaluationSummary | None = None

    @classmethod
    def from_proto(cls, run_id: str, proto: run_pb2.RunFinished) -> Self:
        """Read it from the contract's RunFinished."""
        return cls(
            run_id=run_id,
            state=state_of(proto.state),
            output=_json.decode(proto.output_json),
            error=ErrorInfo.from_proto(proto.error) if proto.HasField("error") else None,
            usage=Usage.from_proto(proto.usage) if proto.HasField("usage") else None,
            duration=duration_of(proto, "duration"),
            evaluation=EvaluationSummary.from_proto(proto.evaluation) if proto.HasField("evaluation") else None,
        )


class Run(Frozen):
    """One execution of an agent or of an evaluation, as it stood when the server was asked.

    Times are the server's, in UTC; `ended` and `result` are None until it has ended. `last_sequence` is that of
    its last event, 0 before the first. `producer_seen` is when its producer was last heard from.

    Example:
        run = await client.runs.get(run_id)
        assert (run.name, run.state, run.has_ended) == ("weather-agent", "succeeded", True)
        assert run.ended - run.created < timedelta(minutes=5)
    """

    id: str
    kind: RunKind
    name: str
    state: RunState
    labels: Mapping[str, str]
    parent_run_id: str
    conversation_id: str
    created: datetime | None
    updated: datetime | None
    ended: datetime | None
    last_sequence: int
    producer_seen: datetime | None
    producer_timeout: timedelta | None
    result: RunResult | None

    @classmethod
    def from_proto(cls, proto: run_pb2.Run) -> Self:
        """Read it from the contract's Run."""
        return cls(
            id=proto.run_id,
            kind=kind_of(proto.kind),
            name=proto.name,
            state=state_of(proto.state),
            labels=dict(proto.labels),
            parent_run_id=proto.parent_run_id,
            conversation_id=proto.conversation_id,
            created=time_of(proto, "create_time"),
            updated=time_of(proto, "update_time"),
            ended=time_of(proto, "end_time"),
            last_sequence=proto.last_sequence,
            producer_seen=time_of(proto, "producer_seen_time"),
            producer_timeout=duration_of(proto, "producer_timeout"),
            result=RunResult.from_proto(proto.run_id, proto.result) if proto.HasField("result") else None,
        )

    @property
    def has_ended(self) -> bool:
        """Whether the run is over, well or not."""
        return self.state.is_terminal


class Receipt(Frozen):
    """Where a batch ended up in a run's log.

    Example:
        async with client.runs.start("agent") as run:
            await run.text("It is cold.")
            await run.flush()
            assert run.last_receipt.last_sequence == 3  # run_started, message_started, text_delta
    """

    last_producer_sequence: int
    first_sequence: int
    last_sequence: int
    duplicate: bool

    @classmethod
    def from_proto(cls, proto: event_service_pb2.BatchReceipt) -> Self:
        """Read it from the contract's BatchReceipt."""
        return cls(
            last_producer_sequence=proto.last_producer_sequence,
            first_sequence=proto.first_sequence,
            last_sequence=proto.last_sequence,
            duplicate=proto.duplicate,
        )


class ToolCall(Frozen):
    """A tool's call and its result, paired. `outcome` is None if the call never ended.

    Example:
        [call] = [call async for call in client.runs.stream(run_id).tool_calls]
        assert (call.name, call.arguments, call.result) == ("search_web", {"q": "Oslo"}, ["-3 °C"])
        assert call.outcome is ToolCallOutcome.SUCCEEDED
    """

    id: str
    name: str
    arguments: Any
    result: Any = None
    outcome: ToolCallOutcome | None = None
    error: ErrorInfo | None = None
    step_id: str = ""
    duration: timedelta | None = None


class Progress(Frozen):
    """How far a run, or a step of it, is. Units done and in all are None where they are not known.

    `step_id` and `step_name` are of the step that reports, such as a nested agent; empty for the run itself.

    Example:
        async with client.runs.start("indexer") as run:
            await run.progress("pages", completed=3, total=4)
        assert [step.fraction async for step in client.runs.stream(run.id).progress] == [0.75]
    """

    label: str = ""
    completed: int | None = None
    total: int | None = None
    iteration: int = 0
    usage: Usage | None = None
    step_id: str = ""
    step_name: str = ""

    @classmethod
    def from_proto(cls, proto: event_pb2.ProgressReported, *, step_id: str = "", step_name: str = "") -> Self:
        """Read it from the contract's ProgressReported."""
        return cls(
            label=proto.label,
            completed=proto.completed if proto.HasField("completed") else None,
            total=proto.total if proto.HasField("total") else None,
            iteration=proto.iteration,
            usage=Usage.from_proto(proto.usage) if proto.HasField("usage") else None,
            step_id=step_id,
            step_name=step_name,
        )

    @property
    def fraction(self) -> float | None:
        """The part that is done, from 0 to 1; None where it is not known."""
        return min(1.0, max(0.0, self.completed / self.total)) if self.completed is not None and self.total else None


class Step(Frozen):
    """A unit of a run's work, with all that was done within it. `state` is None if it never ended.

    `text` and `tool_calls` are what was said and called in this very step, not in its `children`.

    Example:
        recording = await client.runs.stream(run_id).collect()
        names = [step.name for root in recording.steps for step in root.walk()]
        assert names == ["plan"]
    """

    id: str
    parent_id: str = ""
    name: str = ""
    kind: StepKind = StepKind.UNSPECIFIED
    attempt: int = 1
    state: RunState | None = None
    input: Any = None
    output: Any = None
    error: ErrorInfo | None = None
    usage: Usage | None = None
    duration: timedelta | None = None
    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    children: tuple["Step", ...] = ()

    def walk(self) -> Iterator["Step"]:
        """Give this step and all below it, each before its children."""
        waiting = [self]
        while waiting:
            step = waiting.pop()
            yield step
            waiting.extend(reversed(step.children))

    # Steps may lie deeper than Python's stack: nothing of these calls itself for the children.

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Step):
            return NotImplemented
        pairs = zip_longest(self._rows(), other._rows())
        return self is other or all(row == other_row for row, other_row in pairs)

    __hash__ = Frozen.__hash__

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        yield from self._own().items()
        yield "children", _Shown(f"<{len(self.children)} steps>" if self.children else "()")

    def __reduce__(self) -> tuple[Any, ...]:
        return _step_of, (list(self._rows()),)

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> "Step":
        return _step_of([(deepcopy(own, memo), count) for own, count in self._rows()])

    def _rows(self) -> Iterator[tuple[dict[str, Any], int]]:
        return ((step._own(), len(step.children)) for step in self.walk())

    def _own(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "children"}


class _Shown(str):
    """Text whose repr is itself."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def _step_of(rows: list[tuple[dict[str, Any], int]]) -> Step:
    """Build a tree of its steps, each before its children and with their number."""
    built: list[Step] = []
    for own, count in reversed(rows):
        children = tuple(built.pop() for _ in range(count))
        built.append(Step.model_construct(**own, children=children))
    return built.pop()


def time_of(proto: Message, field: str) -> datetime | None:
    """Read a message's time, if it has one."""
    value = getattr(proto, field)
    return to_datetime(value) if proto.HasField(field) else None


def to_datetime(value: Timestamp) -> datetime:
    """Read a time, in UTC, to the microsecond; one beyond what Python can say is the first or last that it can."""
    try:
        return value.ToDatetime(tzinfo=UTC)
    except (OverflowError, ValueError):
        return _LAST_TIME if value.seconds > 0 else _FIRST_TIME


def to_timedelta(value: Duration) -> timedelta:
    """Read a duration; one beyond what Python can say is the longest that it can."""
    try:
        return value.ToTimedelta()
    except OverflowError:
        return timedelta.max if value.seconds > 0 else timedelta.min


def duration_of(proto: Message, field: str) -> timedelta | None:
    """Read a message's duration, if it has one."""
    return to_timedelta(getattr(proto, field)) if proto.HasField(field) else None
