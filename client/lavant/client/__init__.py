"""The client of lavant: publish what agents do, and read it without a miss or a repeat."""

from lavant.client._async.blocks import AsyncMessageBlock, AsyncStepBlock, AsyncToolBlock
from lavant.client._async.client import AsyncClient
from lavant.client._async.evaluation_stream import AsyncEvaluationStream
from lavant.client._async.evaluations import AsyncEvaluations
from lavant.client._async.producer import AsyncRunProducer
from lavant.client._async.runs import AsyncRuns
from lavant.client._async.stream import AsyncRunStream
from lavant.client._comparison import ScoreComparison
from lavant.client._errors import (
    ConsumerBusy,
    DataLoss,
    EvaluationChanged,
    IdleTimeout,
    InvalidField,
    LavantError,
    PermissionDenied,
    ProducerConflict,
    ProducerError,
    ProducerFenced,
    ProducerGap,
    ProducerOverloaded,
    QuotaExceeded,
    ResumeTokenInvalid,
    RunAbandoned,
    RunCancelled,
    RunExists,
    RunFailed,
    RunNotEnded,
    RunNotFound,
    RunNotSucceeded,
    RunSealed,
    RunTimedOut,
    SlowConsumer,
    StaleAttempt,
    StoreEpochChanged,
    StreamCut,
    StreamDisplaced,
    StreamError,
    StreamTimeout,
    Unauthenticated,
    Unavailable,
    WaitTimeout,
)
from lavant.client._evaluations import (
    ErrorEvent,
    Evaluation,
    EvaluationEvent,
    FinalEvent,
    ProgressEvent,
    RowCompleteEvent,
    StatusEvent,
)
from lavant.client._events import Event
from lavant.client._models import (
    ErrorInfo,
    EvaluationSummary,
    FieldViolation,
    Progress,
    Receipt,
    Run,
    RunResult,
    Step,
    ToolCall,
    Usage,
)
from lavant.client._options import ProducerOptions
from lavant.client._recording import Recording
from lavant.client._rows import Row, Score
from lavant.client._states import RunKind, RunState, StepKind, ToolCallOutcome
from lavant.client._stub_call import StubCall
from lavant.client._sync.blocks import MessageBlock, StepBlock, ToolBlock
from lavant.client._sync.client import Client
from lavant.client._sync.evaluation_stream import EvaluationStream
from lavant.client._sync.evaluations import Evaluations
from lavant.client._sync.producer import RunProducer
from lavant.client._sync.runs import Runs
from lavant.client._sync.stream import RunStream

__all__ = [
    "AsyncClient",
    "AsyncEvaluationStream",
    "AsyncEvaluations",
    "AsyncMessageBlock",
    "AsyncRunProducer",
    "AsyncRunStream",
    "AsyncRuns",
    "AsyncStepBlock",
    "AsyncToolBlock",
    "Client",
    "ConsumerBusy",
    "DataLoss",
    "ErrorEvent",
    "ErrorInfo",
    "Evaluation",
    "EvaluationChanged",
    "EvaluationEvent",
    "EvaluationStream",
    "EvaluationSummary",
    "Evaluations",
    "Event",
    "FieldViolation",
    "FinalEvent",
    "IdleTimeout",
    "InvalidField",
    "LavantError",
    "MessageBlock",
    "PermissionDenied",
    "ProducerConflict",
    "ProducerError",
    "ProducerFenced",
    "ProducerGap",
    "ProducerOptions",
    "ProducerOverloaded",
    "Progress",
    "ProgressEvent",
    "QuotaExceeded",
    "Receipt",
    "Recording",
    "ResumeTokenInvalid",
    "Row",
    "RowCompleteEvent",
    "Run",
    "RunAbandoned",
    "RunCancelled",
    "RunExists",
    "RunFailed",
    "RunKind",
    "RunNotEnded",
    "RunNotFound",
    "RunNotSucceeded",
    "RunProducer",
    "RunResult",
    "RunSealed",
    "RunState",
    "RunStream",
    "RunTimedOut",
    "Runs",
    "Score",
    "ScoreComparison",
    "SlowConsumer",
    "StaleAttempt",
    "StatusEvent",
    "Step",
    "StepBlock",
    "StepKind",
    "StoreEpochChanged",
    "StreamCut",
    "StreamDisplaced",
    "StreamError",
    "StreamTimeout",
    "StubCall",
    "ToolBlock",
    "ToolCall",
    "ToolCallOutcome",
    "Unauthenticated",
    "Unavailable",
    "Usage",
    "WaitTimeout",
]
