"""EvaluationService: the samples that workers evaluate."""

import secrets

from lavant.contract.values import seconds_of
from lavant.server.auth.ownership import owner_of, session_of
from lavant.server.auth.principal import Scope
from lavant.server.errors import invalid_field
from lavant.server.evaluation.ledger import Ledger
from lavant.server.evaluation.log import log_of
from lavant.server.evaluation.outcomes import Subject, complete, end_session, return_samples
from lavant.server.evaluation.rules import Rules
from lavant.server.evaluation.sampler import find_ended
from lavant.server.evaluation.stream import SampleStream, SamplingOptions
from lavant.server.model import RunKey
from lavant.server.rpc.bounds import checked
from lavant.server.rpc.dispatch import Call, Service, server_stream, unary
from lavant.server.rpc.rule_validation import MOST_LABELS, check_outcome
from lavant.server.store.port import Holder
from lavant.server.streaming.calls import Caller
from lavant.server.streaming.subscription import Streaming
from lavant.server.streaming.tokens import Position
from lavant.v1 import evaluation_service_pb2 as pb
from lavant.v1.event_pb2 import Event

_DEFAULT_SAMPLES = 5
_DEFAULT_LEASE = 30.0
_DEFAULT_HEARTBEAT = 15.0


class EvaluationService:
    """The RPCs of EvaluationService; the contract describes each."""

    def __init__(self, streaming: Streaming, rules: Rules) -> None:
        self._streaming = streaming
        self._engine = streaming.engine
        self._clock = streaming.clock
        self._rules = rules

    def service(self) -> Service:
        """Return the methods for a gRPC server, with the scopes that they need."""
        return Service(
            pb.DESCRIPTOR.services_by_name["EvaluationService"].full_name,
            {
                "SampleRuns": server_stream(pb.SampleRunsRequest, self.sample_runs, Scope.SAMPLES_WORK),
                "CompleteSample": unary(pb.CompleteSampleRequest, self.complete_sample, Scope.SAMPLES_WORK),
            },
        )

    @checked(pb.SampleRunsRequest)
    async def sample_runs(self, request: pb.SampleRunsRequest, call: Caller) -> None:
        """Stream samples to a worker until a planned end, or raise what ended the stream."""
        options = self._sampling_options(request, call)
        with self._rules.sampler(options.rule) as sampler:
            await SampleStream(self._streaming, sampler, options, call.write).deliver()

    @checked(pb.CompleteSampleRequest)
    async def complete_sample(self, request: pb.CompleteSampleRequest, call: Call) -> pb.CompleteSampleResponse:
        """Record the result of a sample, or return samples without one."""
        key = _key(request.rule_id, call)
        check_outcome(request)
        request.session_id = session_of(call.principal, request.session_id)
        now_ns = self._clock.time_ns()
        if request.WhichOneof("outcome") == "returned" and not request.run_id:
            return await self._return(key, request, now_ns)
        if not request.run_id:
            raise invalid_field("run_id", "must be set: the ID of the sample's run")
        run = await find_ended(self._engine, RunKey(call.tenant, request.run_id))
        subject = Subject.of(request.run_id, run, now_ns)
        with self._rules.coordinator(key) as coordinator:

            def decide(ledger: Ledger) -> list[Event]:
                rule = coordinator.record.rule
                if len({*rule.labels, *request.scores.labels}) > MOST_LABELS:
                    raise invalid_field("scores.labels", f"must be at most {MOST_LABELS} together with the rule's")
                return complete(ledger, rule, request, subject, now_ns)

            events = await coordinator.decide(decide)
        return pb.CompleteSampleResponse(duplicate=not events)

    async def _return(self, key: RunKey, request: pb.CompleteSampleRequest, now_ns: int) -> pb.CompleteSampleResponse:
        """Return several samples of a session, or all of them and end the session."""
        with self._rules.coordinator(key) as coordinator:
            events = await coordinator.decide(
                lambda ledger: (
                    return_samples(ledger, request, now_ns)
                    if request.returned.run_ids
                    else end_session(ledger, request.session_id)
                )
            )
        return pb.CompleteSampleResponse(duplicate=not events)

    def _sampling_options(self, request: pb.SampleRunsRequest, call: Caller) -> SamplingOptions:
        key = _key(request.rule_id, call)
        session_id = request.session_id or secrets.token_hex(16)
        position = Position(sequence=0, types=0, created_ns=0)
        if request.resume_token:
            position = self._streaming.tokens.read(request.resume_token, log_of(key))
        remaining = call.time_remaining()
        return SamplingOptions(
            rule=key,
            worker_id=request.worker_id,
            session_id=session_id,
            holder=Holder(
                session_id=session_of(call.principal, session_id),
                attempt=request.attempt,
                take_over=request.take_over,
                owner=owner_of(call.principal),
            ),
            position=position,
            max_samples=request.max_samples or _DEFAULT_SAMPLES,
            lease=seconds_of(request.lease) or _DEFAULT_LEASE,
            heartbeat_interval=seconds_of(request.heartbeat_interval) or _DEFAULT_HEARTBEAT,
            deadline=None if remaining is None else self._clock.monotonic() + remaining,
            peer=call.peer,
        )


def _key(rule_id: str, call: Caller) -> RunKey:
    return RunKey(call.tenant, rule_id)
