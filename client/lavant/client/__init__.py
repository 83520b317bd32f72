"""Client of lavant: publish what agents do, and read it without missing or repeating an event.

Names are imported at their first use: a process that only publishes never loads the blocking client.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lavant.client.access import (
        AccessToken as AccessToken,
        APIKey as APIKey,
        CreatedKey as CreatedKey,
        KeyLimits as KeyLimits,
        Principal as Principal,
        Restriction as Restriction,
    )
    from lavant.client._async.api.evaluations import (
        AsyncEvaluations as AsyncEvaluations,
        AsyncEvaluationStream as AsyncEvaluationStream,
    )
    from lavant.client._async.api.rules import (
        AsyncRules as AsyncRules,
    )
    from lavant.client._async.api.runs import (
        AsyncRuns as AsyncRuns,
    )
    from lavant.client._async.api.scores import (
        AsyncAlertStream as AsyncAlertStream,
        AsyncScores as AsyncScores,
    )
    from lavant.client._async.blocks import (
        AsyncMessageBlock as AsyncMessageBlock,
        AsyncStepBlock as AsyncStepBlock,
        AsyncToolBlock as AsyncToolBlock,
    )
    from lavant.client._async.client import (
        AsyncClient as AsyncClient,
    )
    from lavant.client._async.producer import (
        AsyncRunProducer as AsyncRunProducer,
    )
    from lavant.client._async.run_stream import (
        AsyncRunStream as AsyncRunStream,
    )
    from lavant.client._reading.recording import (
        Recording as Recording,
    )
    from lavant.client._sync.api.evaluations import (
        Evaluations as Evaluations,
        EvaluationStream as EvaluationStream,
    )
    from lavant.client._sync.api.rules import (
        Rules as Rules,
    )
    from lavant.client._sync.api.runs import (
        Runs as Runs,
    )
    from lavant.client._sync.api.scores import (
        AlertStream as AlertStream,
        Scores as Scores,
    )
    from lavant.client._sync.blocks import (
        MessageBlock as MessageBlock,
        StepBlock as StepBlock,
        ToolBlock as ToolBlock,
    )
    from lavant.client._sync.client import (
        Client as Client,
    )
    from lavant.client._sync.producer import (
        RunProducer as RunProducer,
    )
    from lavant.client._sync.run_stream import (
        RunStream as RunStream,
    )
    from lavant.client.alerts import (
        Alert as Alert,
        AlertObstacle as AlertObstacle,
        AlertState as AlertState,
        AlertStatus as AlertStatus,
    )
    from lavant.client.errors import (
        BackfillUnderWay as BackfillUnderWay,
        ConsumerBusy as ConsumerBusy,
        DataLoss as DataLoss,
        EvaluationChanged as EvaluationChanged,
        IdleTimeout as IdleTimeout,
        InvalidField as InvalidField,
        LavantError as LavantError,
        PermissionDenied as PermissionDenied,
        ProducerConflict as ProducerConflict,
        ProducerError as ProducerError,
        ProducerFenced as ProducerFenced,
        ProducerGap as ProducerGap,
        ProducerOverloaded as ProducerOverloaded,
        QuotaExceeded as QuotaExceeded,
        ResumeTokenInvalid as ResumeTokenInvalid,
        RuleChanged as RuleChanged,
        RuleExists as RuleExists,
        KeyNotFound as KeyNotFound,
        RuleNotFound as RuleNotFound,
        RunAbandoned as RunAbandoned,
        RunCancelled as RunCancelled,
        RunExists as RunExists,
        RunFailed as RunFailed,
        RunNotEnded as RunNotEnded,
        RunNotFound as RunNotFound,
        RunNotSucceeded as RunNotSucceeded,
        RunSealed as RunSealed,
        RunTimedOut as RunTimedOut,
        SampleLost as SampleLost,
        SlowConsumer as SlowConsumer,
        StaleAttempt as StaleAttempt,
        StoreEpochChanged as StoreEpochChanged,
        StreamCut as StreamCut,
        StreamDisplaced as StreamDisplaced,
        StreamError as StreamError,
        StreamInUse as StreamInUse,
        StreamTimeout as StreamTimeout,
        ToolNotStubbed as ToolNotStubbed,
        Unauthenticated as Unauthenticated,
        Unavailable as Unavailable,
        WaitTimeout as WaitTimeout,
    )
    from lavant.client._wire.security import (
        TLS as TLS,
    )
    from lavant.client.evaluations import (
        ErrorEvent as ErrorEvent,
        EvaluatedRun as EvaluatedRun,
        Evaluation as Evaluation,
        EvaluationEvent as EvaluationEvent,
        FinalEvent as FinalEvent,
        ProcessedSamples as ProcessedSamples,
        ProgressEvent as ProgressEvent,
        Row as Row,
        RowCompleteEvent as RowCompleteEvent,
        ScoreComparison as ScoreComparison,
        StatusEvent as StatusEvent,
        StubCall as StubCall,
    )
    from lavant.client.events import (
        Event as Event,
    )
    from lavant.client.models import (
        ErrorInfo as ErrorInfo,
        EvaluationSummary as EvaluationSummary,
        FieldViolation as FieldViolation,
        Progress as Progress,
        Receipt as Receipt,
        Run as Run,
        RunChange as RunChange,
        RunResult as RunResult,
        Step as Step,
        TextChunk as TextChunk,
        ToolCall as ToolCall,
        Usage as Usage,
    )
    from lavant.client.options import (
        ProducerOptions as ProducerOptions,
    )
    from lavant.client.rules import (
        Backfill as Backfill,
        EvaluatorInfo as EvaluatorInfo,
        Rule as Rule,
        RuleProgress as RuleProgress,
        SampleFilter as SampleFilter,
    )
    from lavant.client.scores import (
        RecordedScore as RecordedScore,
        Score as Score,
        ScoreChange as ScoreChange,
        ScoreFilter as ScoreFilter,
        ScoreGroup as ScoreGroup,
    )
    from lavant.client.states import (
        AuditOutcome as AuditOutcome,
        Role as Role,
        RunKind as RunKind,
        RunState as RunState,
        ScoreStatistic as ScoreStatistic,
        ScoreTrend as ScoreTrend,
        StepKind as StepKind,
        ToolCallOutcome as ToolCallOutcome,
    )

# The module of each public name below lavant.client. The imports above say the same to type checkers.
_HOMES = {
    "AccessToken": "access",
    "APIKey": "access",
    "CreatedKey": "access",
    "KeyLimits": "access",
    "Principal": "access",
    "Restriction": "access",
    "Alert": "alerts",
    "AlertObstacle": "alerts",
    "AlertState": "alerts",
    "AlertStatus": "alerts",
    "AlertStream": "_sync.api.scores",
    "AsyncAlertStream": "_async.api.scores",
    "AsyncClient": "_async.client",
    "AsyncEvaluationStream": "_async.api.evaluations",
    "AsyncEvaluations": "_async.api.evaluations",
    "AsyncMessageBlock": "_async.blocks",
    "AsyncRules": "_async.api.rules",
    "AsyncRunProducer": "_async.producer",
    "AsyncRunStream": "_async.run_stream",
    "AsyncRuns": "_async.api.runs",
    "AsyncScores": "_async.api.scores",
    "AsyncStepBlock": "_async.blocks",
    "AsyncToolBlock": "_async.blocks",
    "Backfill": "rules",
    "BackfillUnderWay": "errors",
    "Client": "_sync.client",
    "ConsumerBusy": "errors",
    "DataLoss": "errors",
    "ErrorEvent": "evaluations",
    "ErrorInfo": "models",
    "EvaluatedRun": "evaluations",
    "Evaluation": "evaluations",
    "EvaluationChanged": "errors",
    "EvaluationEvent": "evaluations",
    "EvaluationStream": "_sync.api.evaluations",
    "EvaluationSummary": "models",
    "Evaluations": "_sync.api.evaluations",
    "EvaluatorInfo": "rules",
    "Event": "events",
    "FieldViolation": "models",
    "FinalEvent": "evaluations",
    "IdleTimeout": "errors",
    "InvalidField": "errors",
    "LavantError": "errors",
    "MessageBlock": "_sync.blocks",
    "PermissionDenied": "errors",
    "ProcessedSamples": "evaluations",
    "ProducerConflict": "errors",
    "ProducerError": "errors",
    "ProducerFenced": "errors",
    "ProducerGap": "errors",
    "ProducerOptions": "options",
    "ProducerOverloaded": "errors",
    "Progress": "models",
    "ProgressEvent": "evaluations",
    "QuotaExceeded": "errors",
    "Receipt": "models",
    "RecordedScore": "scores",
    "Recording": "_reading.recording",
    "ResumeTokenInvalid": "errors",
    "Role": "states",
    "Row": "evaluations",
    "RowCompleteEvent": "evaluations",
    "Rule": "rules",
    "RuleChanged": "errors",
    "RuleExists": "errors",
    "KeyNotFound": "errors",
    "RuleNotFound": "errors",
    "RuleProgress": "rules",
    "Rules": "_sync.api.rules",
    "Run": "models",
    "RunAbandoned": "errors",
    "RunCancelled": "errors",
    "RunChange": "models",
    "RunExists": "errors",
    "RunFailed": "errors",
    "RunKind": "states",
    "RunNotEnded": "errors",
    "RunNotFound": "errors",
    "RunNotSucceeded": "errors",
    "RunProducer": "_sync.producer",
    "RunResult": "models",
    "RunSealed": "errors",
    "RunState": "states",
    "RunStream": "_sync.run_stream",
    "RunTimedOut": "errors",
    "Runs": "_sync.api.runs",
    "SampleFilter": "rules",
    "SampleLost": "errors",
    "Score": "scores",
    "ScoreChange": "scores",
    "ScoreComparison": "evaluations",
    "ScoreFilter": "scores",
    "ScoreGroup": "scores",
    "ScoreStatistic": "states",
    "ScoreTrend": "states",
    "Scores": "_sync.api.scores",
    "SlowConsumer": "errors",
    "StaleAttempt": "errors",
    "StatusEvent": "evaluations",
    "Step": "models",
    "StepBlock": "_sync.blocks",
    "StepKind": "states",
    "StoreEpochChanged": "errors",
    "StreamCut": "errors",
    "StreamDisplaced": "errors",
    "StreamError": "errors",
    "StreamInUse": "errors",
    "StreamTimeout": "errors",
    "StubCall": "evaluations",
    "TLS": "_wire.security",
    "TextChunk": "models",
    "ToolBlock": "_sync.blocks",
    "ToolCall": "models",
    "AuditOutcome": "states",
    "ToolCallOutcome": "states",
    "ToolNotStubbed": "errors",
    "Unauthenticated": "errors",
    "Unavailable": "errors",
    "Usage": "models",
    "WaitTimeout": "errors",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    """Import a public name's module at the first use of the name."""
    if (home := _HOMES.get(name)) is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{home}"), name)
    return value


def __dir__() -> list[str]:
    return [*globals(), *_HOMES]
