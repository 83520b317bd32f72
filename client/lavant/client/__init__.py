"""The client of lavant: publish what agents do, and read it without a miss or a repeat."""

from lavant.client._alerts import Alert, AlertObstacle, AlertState, AlertStatus
from lavant.client._async.alert_stream import AsyncAlertStream
from lavant.client._async.blocks import AsyncMessageBlock, AsyncStepBlock, AsyncToolBlock
from lavant.client._async.client import AsyncClient
from lavant.client._async.evaluation_stream import AsyncEvaluationStream
from lavant.client._async.evaluations import AsyncEvaluations
from lavant.client._async.producer import AsyncRunProducer
from lavant.client._async.rules import AsyncRules
from lavant.client._async.runs import AsyncRuns
from lavant.client._async.scores import AsyncScores
from lavant.client._async.stream import AsyncRunStream
from lavant.client._comparison import ScoreComparison
from lavant.client._errors import (
    BackfillUnderWay,
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
    RuleChanged,
    RuleExists,
    RuleNotFound,
    RunAbandoned,
    RunCancelled,
    RunExists,
    RunFailed,
    RunNotEnded,
    RunNotFound,
    RunNotSucceeded,
    RunSealed,
    RunTimedOut,
    SampleLost,
    SlowConsumer,
    StaleAttempt,
    StoreEpochChanged,
    StreamCut,
    StreamDisplaced,
    StreamError,
    StreamInUse,
    StreamTimeout,
    ToolNotStubbed,
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
from lavant.client._judged import JudgedRun, ProcessedSamples
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
from lavant.client._rules import Backfill, EvaluatorInfo, Rule, RuleProgress, SampleFilter
from lavant.client._scores import RecordedScore, ScoreChange, ScoreFilter, ScoreGroup
from lavant.client._states import Role, RunKind, RunState, ScoreStatistic, ScoreVerdict, StepKind, ToolCallOutcome
from lavant.client._stub_call import StubCall
from lavant.client._sync.alert_stream import AlertStream
from lavant.client._sync.blocks import MessageBlock, StepBlock, ToolBlock
from lavant.client._sync.client import Client
from lavant.client._sync.evaluation_stream import EvaluationStream
from lavant.client._sync.evaluations import Evaluations
from lavant.client._sync.producer import RunProducer
from lavant.client._sync.rules import Rules
from lavant.client._sync.runs import Runs
from lavant.client._sync.scores import Scores
from lavant.client._sync.stream import RunStream
from lavant.client._text_chunk import TextChunk

__all__ = [
    "Alert",
    "AlertObstacle",
    "AlertState",
    "AlertStatus",
    "AlertStream",
    "AsyncAlertStream",
    "AsyncClient",
    "AsyncEvaluationStream",
    "AsyncEvaluations",
    "AsyncMessageBlock",
    "AsyncRules",
    "AsyncRunProducer",
    "AsyncRunStream",
    "AsyncRuns",
    "AsyncScores",
    "AsyncStepBlock",
    "AsyncToolBlock",
    "Backfill",
    "BackfillUnderWay",
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
    "EvaluatorInfo",
    "Event",
    "FieldViolation",
    "FinalEvent",
    "IdleTimeout",
    "InvalidField",
    "JudgedRun",
    "LavantError",
    "MessageBlock",
    "PermissionDenied",
    "ProcessedSamples",
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
    "RecordedScore",
    "Recording",
    "ResumeTokenInvalid",
    "Role",
    "Row",
    "RowCompleteEvent",
    "Rule",
    "RuleChanged",
    "RuleExists",
    "RuleNotFound",
    "RuleProgress",
    "Rules",
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
    "SampleFilter",
    "SampleLost",
    "Score",
    "ScoreChange",
    "ScoreComparison",
    "ScoreFilter",
    "ScoreGroup",
    "ScoreStatistic",
    "ScoreVerdict",
    "Scores",
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
    "StreamInUse",
    "StreamTimeout",
    "StubCall",
    "TextChunk",
    "ToolBlock",
    "ToolCall",
    "ToolCallOutcome",
    "ToolNotStubbed",
    "Unauthenticated",
    "Unavailable",
    "Usage",
    "WaitTimeout",
]
