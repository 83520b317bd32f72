"""Builders of scores, and the logs that rules' results are in, written as the server writes them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lavant.server.model import RESULTS_OF_RULES, RunKey
from lavant.server.store.port import Engine
from lavant.v1.event_pb2 import EvaluationPlan, Evaluator, Event, RowFinished, RunStarted, Score, ScoreRecorded
from lavant.v1.run_pb2 import Error, Run, RunKind
from lavant.v1.score_service_pb2 import ListScoresRequest, RecordScoreRequest, ScoreFilter
from support.events import batch_of, identified, run_finished
from support.server import Stubs

Value = float | bool | str | None
TENANT = "default"
DAY_NS = 24 * 3600 * 1_000_000_000


def score(name: str = "correctness", value: Value = 1.0, *, evaluator: str = "", version: str = "") -> Score:
    """What an evaluator said; None: it failed."""
    said = Score(name=name)
    if evaluator or version:
        said.evaluator.CopyFrom(Evaluator(name=evaluator, version=version))
    if value is None:
        said.error.CopyFrom(Error(type="ValueError", message="it broke"))
    elif isinstance(value, bool):
        said.passed = value
    elif isinstance(value, str):
        said.label = value
    else:
        said.number = value
    return said


def recorded(
    name: str = "correctness",
    value: Value = 1.0,
    *,
    rule_id: str = "rule",
    run: str = "run",
    agent: str = "weather",
    time_ns: int = 1_700_000_000_000_000_000,
    labels: Mapping[str, str] | None = None,
    **evaluator: str,
) -> ScoreRecorded:
    """A score on a run, with what the server sets."""
    one = ScoreRecorded(
        subject_run_id=run,
        score=score(name, value, **evaluator),
        rule_id=rule_id,
        subject_name=agent,
        labels=labels,
    )
    one.subject_time.FromNanoseconds(time_ns)
    return one


def row_of(one: ScoreRecorded) -> RowFinished:
    """Return the row of a rule's results that holds a score."""
    return RowFinished(
        row_id=one.subject_run_id,
        iteration=1,
        subject_run_id=one.subject_run_id,
        scores=[one.score],
        rule_id=one.rule_id,
        subject_name=one.subject_name,
        subject_time=one.subject_time if one.HasField("subject_time") else None,
        labels=one.labels,
    )


class Segment:
    """A log of a rule's results."""

    def __init__(self, engine: Engine, rule_id: str = "rule", number: int = 1, tenant: str = TENANT) -> None:
        self.key = RunKey(tenant, f"lavant.{rule_id}.{number}")
        self._engine = engine
        self._rule_id = rule_id
        self._next = 1

    async def begin(self) -> "Segment":
        """Create it, with its first event."""
        run = Run(kind=RunKind.RUN_KIND_EVALUATION, name=self._rule_id, labels=RESULTS_OF_RULES)
        await self._engine.create_run(self.key, run)
        await self.append([identified(Event(run_started=RunStarted(evaluation=EvaluationPlan(rule_id=self._rule_id))))])
        return self

    async def add(self, *scores: ScoreRecorded) -> None:
        """Append scores, each as a row."""
        await self.append([identified(Event(row_finished=row_of(one))) for one in scores])

    async def end(self) -> None:
        """Seal it."""
        await self.append([run_finished()])

    async def append(self, events: Sequence[Event]) -> None:
        """Append one batch."""
        batch = batch_of(events, first=self._next, producer_id="lavant", run_id=self.key.run_id)
        await self._engine.append(self.key, batch)
        self._next += len(events)


async def record(
    stubs: Stubs, score_id: str = "s", said: Score | None = None, run_id: str = "run", **more: Any
) -> bool:
    """Record a score; return whether it was there."""
    request = RecordScoreRequest(score_id=score_id, run_id=run_id, score=said or score(), **more)
    return (await stubs.scores.RecordScore(request)).duplicate


async def scores_of(stubs: Stubs, page_size: int | None = None, **wanted: Any) -> list[ScoreRecorded]:
    """All scores that a filter means, in pages."""
    found: list[ScoreRecorded] = []
    token = ""
    while True:
        request = ListScoresRequest(filter=ScoreFilter(**wanted), page_size=page_size, page_token=token)
        page = await stubs.scores.ListScores(request)
        found += page.scores
        token = page.next_page_token
        if not token:
            return found


def values(scores: Iterable[ScoreRecorded]) -> list[Any]:
    """What each score says."""
    kinds = [(one.score, one.score.WhichOneof("value")) for one in scores]
    return [getattr(said, kind) if kind else None for said, kind in kinds]
