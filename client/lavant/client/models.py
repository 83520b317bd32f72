"""Values that readers get: immutable, with JSON decoded and times as aware datetimes in UTC."""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from datetime import datetime, timedelta
from itertools import zip_longest
from typing import Any, ClassVar, Literal, Self

from google.protobuf.message import Message
from pydantic import BaseModel, ConfigDict

from lavant.client._wire import json_text as _json
from lavant.client._wire.values import READERS, read
from lavant.client.states import RunKind, RunState, StepKind, ToolCallOutcome
from lavant.contract.text import to_text
from lavant.v1 import event_service_pb2, run_pb2, run_service_pb2

_SCALARS = (str, int, float, datetime, timedelta)


class Frozen(BaseModel):
    """Base of immutable values. `model_copy(update=...)` returns a changed copy."""

    model_config = ConfigDict(frozen=True)
    # The contract's message that stands for the value wherever it is nested, and the names of fields that differ.
    _contract: ClassVar[type[Message] | None] = None
    _contract_names: ClassVar[Mapping[str, str]] = {}

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        if cls._contract is not None:
            READERS[cls._contract.DESCRIPTOR.full_name] = cls.from_proto

    @classmethod
    def from_proto(cls, proto: Any, **given: Any) -> Self:
        """Return the value of the contract's message. `given` are fields that the message does not have."""
        return read(cls, proto, **given)

    def __hash__(self) -> int:
        # Decoded JSON cannot be hashed; the other fields distinguish most values.
        return hash((type(self), *(value for value in self.__dict__.values() if isinstance(value, _SCALARS))))


class FieldViolation(Frozen):
    """A field of a request that breaks a rule: its path, and the rule.

    Example:
        try:
            await client.runs.create("")
        except InvalidField as error:
            [violation] = error.violations
            assert (violation.path, violation.description) == (
                "settings.name",
                "must be 1 to 256 characters long, not 0",
            )
    """

    path: str
    description: str


class ErrorInfo(Frozen):
    """An error in a run: its message for people, and its type, the class of the exception.

    `retryable` is whether a retry may succeed. `details` is any JSON value.

    Example:
        run = await client.runs.get(failed_id)
        assert (run.result.error.type, run.result.error.message) == ("LookupError", "no such city")
    """

    _contract: ClassVar = run_pb2.Error

    message: str
    type: str = ""
    retryable: bool = False
    details: Any = None

    def to_proto(self) -> run_pb2.Error:
        """Return the contract's Error."""
        return run_pb2.Error(
            message=to_text(self.message),
            type=to_text(self.type),
            retryable=self.retryable,
            details_json=_json.encode_optional(self.details),
        )


class Usage(Frozen):
    """Tokens and cost of model requests, named as OpenTelemetry's gen_ai.usage attributes.

    Example:
        used = Usage(input_tokens=812, output_tokens=64) + Usage(input_tokens=40, output_tokens=6, cost_usd=0.01)
        assert (used.total_tokens, used.cost_usd) == (922, 0.01)
    """

    _contract: ClassVar = run_pb2.TokenUsage

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
        """Input tokens plus output tokens."""
        return self.input_tokens + self.output_tokens

    def __add__(self, other: "Usage") -> "Usage":
        """Return the sum. A cost that only one side has is kept, and the model if both sides have the same."""
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
        """Return the contract's TokenUsage."""
        return run_pb2.TokenUsage(**self.model_dump(exclude_none=True))


class EvaluationSummary(Frozen):
    """Totals of an evaluation's rows.

    A row whose task or one of whose evaluators failed passes nothing: `accuracy` and the means of verdicts count it as
    not passed. Means of numbers are over the rows that have one. By name of the score, `score_counts` is the number of
    rows with a number or a verdict, `error_counts` the number of failed rows without one.

    Example:
        summary = EvaluationSummary(rows_succeeded=9, rows_failed=1, mean_scores={"correctness": 0.8}, accuracy=0.9)
        assert summary.mean_scores["correctness"] >= 0.8
    """

    _contract: ClassVar = run_pb2.EvaluationSummary

    rows_succeeded: int
    rows_failed: int
    mean_scores: Mapping[str, float]
    accuracy: float | None = None
    score_counts: Mapping[str, int] = {}
    error_counts: Mapping[str, int] = {}

    def to_proto(self) -> run_pb2.EvaluationSummary:
        """Return the contract's EvaluationSummary."""
        return run_pb2.EvaluationSummary(**self.model_dump())


class RunResult(Frozen):
    """State, output, error, usage and duration of a run that has ended.

    Example:
        result = await client.runs.stream(run_id).result()
        assert (result.state, result.output) == ("succeeded", {"answer": "cold"})
    """

    _contract: ClassVar = run_pb2.RunFinished

    run_id: str
    state: RunState
    output: Any = None
    error: ErrorInfo | None = None
    usage: Usage | None = None
    duration: timedelta | None = None
    evaluation: EvaluationSummary | None = None


class Run(Frozen):
    """Snapshot of a run: one execution of an agent or of an evaluation.

    Times are the server's, in UTC. `ended` and `result` are None until the run has ended. `last_sequence` is the
    sequence of its last event, 0 before the first. `producer_seen` is when its producer last sent something.

    Example:
        run = await client.runs.get(run_id)
        assert (run.name, run.state, run.has_ended) == ("weather-agent", "succeeded", True)
        assert run.ended - run.created < timedelta(minutes=5)
    """

    _contract: ClassVar = run_pb2.Run
    _contract_names: ClassVar = {
        "id": "run_id",
        "created": "create_time",
        "updated": "update_time",
        "ended": "end_time",
        "producer_seen": "producer_seen_time",
    }

    id: str
    kind: RunKind
    name: str
    state: RunState
    labels: Mapping[str, str]
    parent_run_id: str
    conversation_id: str
    created: datetime | None = None
    updated: datetime | None = None
    ended: datetime | None = None
    last_sequence: int = 0
    producer_seen: datetime | None = None
    producer_timeout: timedelta | None = None
    result: RunResult | None = None

    @classmethod
    def from_proto(cls, proto: Any, **given: Any) -> Self:
        """Read the contract's Run."""
        result = RunResult.from_proto(proto.result, run_id=proto.run_id) if proto.HasField("result") else None
        return super().from_proto(proto, result=result, **given)

    @property
    def has_ended(self) -> bool:
        """Whether the run has ended, in any terminal state."""
        return self.state.is_terminal


class RunChange(Frozen):
    """A change that `runs.watch` reports.

    `type` is "run" when a run matches that was created or changed state, "left" when a run stopped matching, "deleted"
    when it was deleted, and "caught_up" once when all runs are reported that matched at the start. Only the first has
    `run`, and only the last has no `run_id`. "left" and "deleted" may be about runs that were never reported before.
    Pass `resume_token` to `runs.watch` to continue after this change; changes that came with it may be repeated then.

    Example:
        shown = {}
        async for change in client.runs.watch(states=["running"]):
            if change.run is not None:
                shown[change.run_id] = change.run
            elif change.type == "caught_up":
                break
            else:
                shown.pop(change.run_id, None)
    """

    type: Literal["run", "left", "deleted", "caught_up"]
    run_id: str
    run: Run | None
    resume_token: str


def run_changes(frame: run_service_pb2.WatchRunsResponse, resume_token: str) -> Iterator[RunChange]:
    """Yield the changes in a frame. Each except the last has the token from before, which repeats the frame."""
    changes = [_change("deleted", run_id, resume_token) for run_id in frame.deleted_run_ids]
    changes += [_change("left", run_id, resume_token) for run_id in frame.left_run_ids]
    for proto in frame.runs:
        run = Run.from_proto(proto)
        changes.append(RunChange(type="run", run_id=run.id, run=run, resume_token=resume_token))
    if frame.caught_up:
        changes.append(_change("caught_up", "", resume_token))
    yield from changes[:-1]
    if changes:
        yield changes[-1].model_copy(update={"resume_token": frame.resume_token})


def _change(kind: Literal["left", "deleted", "caught_up"], run_id: str, resume_token: str) -> RunChange:
    return RunChange(type=kind, run_id=run_id, run=None, resume_token=resume_token)


class Receipt(Frozen):
    """Receipt of a stored batch: its position in the run's log.

    `duplicate` is whether the batch was stored before, by an earlier attempt to send it.

    Example:
        async with client.runs.start("agent") as run:
            await run.text("It is cold.")
            await run.flush()
            assert run.last_receipt.last_sequence == 3  # run_started, message_started, text_delta
    """

    _contract: ClassVar = event_service_pb2.BatchReceipt

    last_producer_sequence: int
    first_sequence: int
    last_sequence: int
    duplicate: bool


class ToolCall(Frozen):
    """A tool call with its result. `outcome` is None if the call has not ended.

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
    """Progress of a run, or of one of its steps. `completed` and `total` are None if they are not known.

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

    @property
    def fraction(self) -> float | None:
        """Completed part, from 0 to 1; None if it is not known."""
        return min(1.0, max(0.0, self.completed / self.total)) if self.completed is not None and self.total else None


class Step(Frozen):
    """A step of a run, with everything published in it. `state` is None if it has not ended.

    `text` and `tool_calls` are of this step only, not of its `children`.

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
        """Yield this step and all steps below it, each before its children."""
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
    """A str whose repr is itself."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def _step_of(rows: list[tuple[dict[str, Any], int]]) -> Step:
    """Build a tree from its steps, each before its children and with the number of its children."""
    built: list[Step] = []
    for own, count in reversed(rows):
        children = tuple(built.pop() for _ in range(count))
        built.append(Step.model_construct(**own, children=children))
    return built.pop()


class TextChunk(str):
    """A str with its position in a run: text of a message.

    `step_id` and `step_name` are of the innermost step, empty for the run itself. All chunks of a message have the same
    `message_id`. `is_nested` is whether a nested agent wrote it.

    Example:
        async for chunk in client.runs.stream(run_id).text_chunks(nested=True):
            print(f"[{chunk.step_name}] {chunk}" if chunk.is_nested else chunk)
    """

    __slots__ = ("is_nested", "message_id", "step_id", "step_name")
    step_id: str
    step_name: str
    message_id: str
    is_nested: bool

    def __new__(
        cls, text: str, *, step_id: str = "", step_name: str = "", message_id: str = "", is_nested: bool = False
    ) -> "TextChunk":
        """Return a chunk with this text."""
        chunk = super().__new__(cls, text)
        chunk.step_id, chunk.step_name = step_id, step_name
        chunk.message_id, chunk.is_nested = message_id, is_nested
        return chunk
