"""A worker that judges the runs which a rule samples."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_evals.evaluators import Evaluator

from lavant.client._arguments import check_optional_seconds, check_seconds, duration
from lavant.client._async.calls import Call
from lavant.client._async.connection import Connection
from lavant.client._async.limits import Limits
from lavant.client._async.rules import AsyncRules
from lavant.client._async.runs import AsyncRuns
from lavant.client._async.subscription import Subscription
from lavant.client._judged import JudgedRun, ProcessedSamples
from lavant.client._rules import EvaluatorInfo, Rule, evaluator_infos
from lavant.client._sessions import Session, Sessions
from lavant.client.integrations._judging_attempt import Attempts
from lavant.client.integrations._judging_health import Outage
from lavant.client.integrations._judging_samples import HeldSamples
from lavant.client.integrations._judging_shift import Shift
from lavant.v1.evaluation_service_pb2 import SampleRunsRequest, SampleRunsResponse

_MOST_SAMPLES = 1_000
_MOST_EVALUATORS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """What `AsyncEvaluations.process_stream` is given. Raises ValueError or TypeError for what makes no sense."""

    rule_id: str
    evaluators: Sequence[Evaluator[Any, Any, Any]]
    max_concurrency: int
    labels: Mapping[str, str]
    timeout: float | None
    worker_id: str
    until_caught_up: bool
    on_judged: Callable[[JudgedRun], object] | None
    lease: float
    heartbeat_interval: float
    reconnect_timeout: float | None
    take_over: bool

    def __post_init__(self) -> None:
        if not self.evaluators:
            raise ValueError("evaluators must be one or more: nobody else judges the samples")
        if not 1 <= self.max_concurrency <= _MOST_SAMPLES:
            raise ValueError(f"max_concurrency must be 1 to {_MOST_SAMPLES:,}, not {self.max_concurrency}")
        check_optional_seconds("timeout", self.timeout)
        check_seconds("lease", self.lease)
        check_seconds("heartbeat_interval", self.heartbeat_interval)
        check_optional_seconds("reconnect_timeout", self.reconnect_timeout)

    async def run(self, connection: Connection, runs: AsyncRuns) -> ProcessedSamples:
        """Judge samples until all is done, if that is wanted, or for ever; pause while no evaluator can be reached."""
        session = Sessions().begin(self.rule_id, "")
        samples = HeldSamples(connection, self.rule_id, session.id)
        attempts = Attempts(self.evaluators, self.timeout, runs, connection.clock)
        outage = Outage(self.rule_id, connection.clock, ends=self.until_caught_up)
        counts = Counter[str]()
        was_opened = False
        try:
            while True:
                shift = self._shift(attempts, samples, outage, counts)
                try:
                    is_done = await shift.work(self._subscribe(connection, session, was_opened=was_opened))
                finally:
                    was_opened = was_opened or shift.was_opened
                if is_done or not await outage.pause():
                    break
        finally:
            if was_opened:
                await samples.give_back()
        left = shift.left if outage.error is None else await self._left(connection)
        return ProcessedSamples(
            **{name: counts[name] for name in ("judged", "failed", "lost", "returned")},
            waiting=left,
            error=outage.error,
        )

    async def _left(self, connection: Connection) -> int:
        """Return how many samples nobody holds."""
        return (await AsyncRules(connection).get(self.rule_id)).progress.samples_waiting

    def _shift(self, attempts: Attempts, samples: HeldSamples, outage: Outage, counts: Counter[str]) -> Shift:
        return Shift(
            attempts,
            samples,
            outage,
            counts,
            check=self.check,
            until_caught_up=self.until_caught_up,
            evaluators=_infos(self.evaluators),
            labels=self.labels,
            on_judged=self.on_judged,
        )

    def check(self, rule: Rule) -> None:
        """Raise ValueError if the rule names an evaluator that is not here: its scores would be missing."""
        here = {name for one in self.evaluators for name in _names(one)}
        missing = [evaluator.name for evaluator in rule.evaluators if evaluator.name not in here]
        if missing:
            raise ValueError(f"rule {rule.id} asks for {', '.join(missing)}: pass what gives these scores as well")

    def _subscribe(
        self, connection: Connection, session: Session, *, was_opened: bool
    ) -> Subscription[SampleRunsResponse]:
        def open_call(attempt: int, token: str, opened: bool) -> Call[SampleRunsResponse]:
            request = SampleRunsRequest(
                rule_id=self.rule_id,
                worker_id=self.worker_id,
                session_id=session.id,
                attempt=attempt,
                take_over=self.take_over and not (opened or was_opened),
                resume_token=token,
                max_samples=self.max_concurrency,
                lease=duration(self.lease),
                heartbeat_interval=duration(self.heartbeat_interval),
            )
            return connection.sample_runs(request)

        return Subscription(
            connection,
            open_call,
            session,
            Sessions(),
            resume_token="",
            limits=Limits(None, None, connection.clock),
            reconnect_timeout=self.reconnect_timeout,
            heartbeat_interval=self.heartbeat_interval,
        )


def _names(evaluator: Evaluator[Any, Any, Any]) -> set[str]:
    return {str(evaluator.get_default_evaluation_name()), evaluator.get_serialization_name()}


def _infos(evaluators: Sequence[Evaluator[Any, Any, Any]]) -> list[EvaluatorInfo]:
    """Describe each evaluator of another name, as many as a rule may have; without settings, which may be large."""
    infos = {info.name: info.model_copy(update={"config": None}) for info in evaluator_infos(evaluators)}
    return [*infos.values()][:_MOST_EVALUATORS]
