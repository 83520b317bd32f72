"""Rules and workers over gRPC, the way a client library has them."""

import asyncio
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from google.protobuf.field_mask_pb2 import FieldMask

from lavant.v1 import evaluation_service_pb2 as pb
from lavant.v1 import rule_service_pb2
from lavant.v1.event_pb2 import Evaluator, Event, Score
from lavant.v1.rule_pb2 import Rule, RuleProgress
from lavant.v1.run_pb2 import Error
from support.calls import PATIENCE, ended_run, listed
from support.clock import ManualClock
from support.server import Stubs

if TYPE_CHECKING:
    from grpc import aio

    SampleCall = aio.UnaryStreamCall[pb.SampleRunsRequest, pb.SampleRunsResponse]

EVALUATOR = Evaluator(name="correct", version="1")


def a_rule(rule_id: str = "rule", **fields: Any) -> Rule:
    """A rule of one evaluator."""
    return Rule(**{"rule_id": rule_id, "evaluators": [EVALUATOR], **fields})


async def create_rule(stubs: Stubs, rule_id: str = "rule", **fields: Any) -> Rule:
    """Create a rule."""
    return (await stubs.rules.CreateRule(rule_service_pb2.CreateRuleRequest(rule=a_rule(rule_id, **fields)))).rule


async def get_rule(stubs: Stubs, rule_id: str = "rule") -> Rule:
    """Return a rule."""
    return (await stubs.rules.GetRule(rule_service_pb2.GetRuleRequest(rule_id=rule_id))).rule


async def update_rule(stubs: Stubs, rule: Rule, *paths: str) -> Rule:
    """Change the settings of a rule that are named, or those that are set."""
    request = rule_service_pb2.UpdateRuleRequest(rule=rule, update_mask=FieldMask(paths=paths))
    return (await stubs.rules.UpdateRule(request)).rule


async def delete_rule(stubs: Stubs, rule_id: str = "rule") -> None:
    """Delete a rule."""
    await stubs.rules.DeleteRule(rule_service_pb2.DeleteRuleRequest(rule_id=rule_id))


async def backfill(stubs: Stubs, rule_id: str = "rule", **window: Any) -> Rule:
    """Start a backfill of a rule."""
    return (await stubs.rules.BackfillRule(rule_service_pb2.BackfillRuleRequest(rule_id=rule_id, **window))).rule


async def finish(stubs: Stubs, run_ids: Iterable[str], **settings: Any) -> list[str]:
    """Have runs run through, one after the other."""
    ids = list(run_ids)
    for run_id in ids:
        await ended_run(stubs, run_id, **settings)
    return ids


async def pass_time(stubs: Stubs, clock: ManualClock, seconds: int) -> None:
    """Let time pass in steps, so that leases are renewed on the way."""
    for _ in range(2 * seconds):
        clock.advance(0.5)
        await stubs.rules.ListRules(rule_service_pb2.ListRulesRequest())


class Worker:
    """One session of a worker: reads samples as they come."""

    def __init__(self, stubs: Stubs, session_id: str = "one", **fields: Any) -> None:
        self.stubs = stubs
        self.session_id = session_id
        self.rule_id = fields.get("rule_id", "rule")
        self.samples: list[pb.Sample] = []
        self.frames: list[pb.SampleRunsResponse] = []
        self._fields = {"rule_id": "rule", "worker_id": f"worker-{session_id}", "max_samples": 100, **fields}
        self._call: SampleCall | None = None

    @property
    def run_ids(self) -> list[str]:
        """The runs that were assigned to it, in order."""
        return [sample.run.run_id for sample in self.samples]

    @property
    def kinds(self) -> list[str]:
        """The kind of each frame."""
        return [str(frame.WhichOneof("frame")) for frame in self.frames]

    def open(self, *, timeout: float | None = None, **fields: Any) -> "SampleCall":
        """Open the stream, or open it again."""
        request = pb.SampleRunsRequest(**{**self._fields, "session_id": self.session_id, **fields})
        self._call = self.stubs.evaluations.SampleRuns(request, timeout=timeout)
        return self._call

    async def opened(self, **fields: Any) -> "Worker":
        """Open the stream and read its first frame."""
        self.open(**fields)
        assert (await self.read()).WhichOneof("frame") == "opened"
        return self

    async def read(self) -> pb.SampleRunsResponse:
        """The next frame, which must be there soon."""
        assert self._call is not None
        async with asyncio.timeout(PATIENCE):
            frame = await self._call.read()
        assert isinstance(frame, pb.SampleRunsResponse), f"the stream ended with {await self._call.code()}"
        self.frames.append(frame)
        self.samples += frame.samples.samples
        return frame

    async def until(self, met: Callable[["Worker"], bool]) -> "Worker":
        """Read until a condition is met."""
        while not met(self):
            await self.read()
        return self

    async def got(self, count: int) -> list[str]:
        """Read until it has received so many samples in all."""
        await self.until(lambda worker: len(worker.samples) >= count)
        return self.run_ids

    async def caught_up(self, **progress: int) -> RuleProgress:
        """Read until there is nothing left, and the rule is as far as this."""
        while True:
            now = (await self.read()).caught_up.progress
            if self.kinds[-1] == "caught_up" and all(getattr(now, name) == value for name, value in progress.items()):
                return now

    def cut(self) -> None:
        """Cut the stream, as a network does."""
        assert self._call is not None
        self._call.cancel()

    async def complete(self, *run_ids: str, **scores: float) -> list[bool]:
        """Score runs; return of each whether its scores were known."""
        sample_scores = pb.SampleScores(
            scores=[
                Score(name=name, number=value, evaluator=EVALUATOR)
                for name, value in (scores or {"correct": 1.0}).items()
            ]
        )
        return [await self.say(run_id, scores=sample_scores) for run_id in run_ids]

    async def fail(self, run_id: str, message: str = "no answer") -> bool:
        """Report that a run could not be evaluated."""
        return await self.say(run_id, failure=Error(type="Timeout", message=message))

    async def give_back(self, run_id: str) -> bool:
        """Return a sample."""
        return await self.say(run_id, returned=pb.SampleReturn())

    async def say(self, run_id: str, **outcome: Any) -> bool:
        """Complete a sample; return whether it was complete before."""
        request = pb.CompleteSampleRequest(rule_id=self.rule_id, run_id=run_id, session_id=self.session_id, **outcome)
        return (await self.stubs.evaluations.CompleteSample(request)).duplicate


async def results(stubs: Stubs, rule_id: str = "rule", segments: int = 1) -> list[Event]:
    """All events of a rule's first segments."""
    return [event for number in range(1, segments + 1) for event in await listed(stubs, f"lavant.{rule_id}.{number}")]


def evaluated_runs(events: Iterable[Event]) -> list[str]:
    """The runs that rows are of, in their order."""
    return [event.row_finished.row_id for event in events if event.HasField("row_finished")]


def scored(events: Iterable[Event]) -> list[tuple[str, str]]:
    """The runs that were scored, each with the score's name."""
    return [(event.row_finished.subject_run_id, score.name) for event in events for score in event.row_finished.scores]
