"""EvaluationService: rules, and the samples that workers judge."""

import secrets
from collections.abc import Awaitable, Callable, Iterable

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from lavant.server.errors import invalid_field
from lavant.server.evaluation.desks import Desks
from lavant.server.evaluation.feed import Window
from lavant.server.evaluation.ledger import LONGEST_HOLD
from lavant.server.evaluation.outcomes import Subject, complete, end_session, find_ended
from lavant.server.evaluation.record import log_of
from lavant.server.evaluation.rules import Rules
from lavant.server.evaluation.sampling import SampleStream, SamplingOptions
from lavant.server.model import RunKey
from lavant.server.rpc.dispatch import Call, server_stream, unary
from lavant.server.rpc.rule_validation import MOST_LABELS, check_outcome, check_rule, check_rule_id
from lavant.server.rpc.validation import check_enum, check_id, check_page_size, check_seconds, check_time
from lavant.server.store.port import Claim
from lavant.server.streaming.calls import Caller
from lavant.server.streaming.cursors import Cursors, Listing
from lavant.server.streaming.held_stream import Streaming
from lavant.server.streaming.outlet import Outlet
from lavant.server.streaming.tokens import Position
from lavant.v1 import evaluation_service_pb2 as pb
from lavant.v1.rule_pb2 import AlertStatus, BackfillMode, Rule

_DEFAULT_SAMPLES = 5
_MAX_SAMPLES = 1_000
_DEFAULT_LEASE = 30.0
_DEFAULT_HEARTBEAT = 15.0
_MAX_HEARTBEAT = 60.0

StatusesOf = Callable[[str, Rule], Awaitable[Iterable[AlertStatus]]]  # of a tenant's rule's alerts


class EvaluationService:
    """Each method as its comment in the contract says."""

    def __init__(
        self,
        streaming: Streaming,
        desks: Desks,
        cursors: Cursors,
        may_post: Callable[[str], bool],
        statuses_of: StatusesOf,
    ) -> None:
        self._streaming = streaming
        self._engine = streaming.engine
        self._clock = streaming.clock
        self._desks = desks
        self._cursors = cursors
        self._may_post = may_post
        self._statuses_of = statuses_of
        self._rules = Rules(engine=streaming.engine, desks=desks, clock=streaming.clock)

    def handlers(self) -> grpc.GenericRpcHandler:
        """What a gRPC server is given."""
        return grpc.method_handlers_generic_handler(
            pb.DESCRIPTOR.services_by_name["EvaluationService"].full_name,
            {
                "CreateRule": unary(pb.CreateRuleRequest, self.create_rule),
                "GetRule": unary(pb.GetRuleRequest, self.get_rule),
                "ListRules": unary(pb.ListRulesRequest, self.list_rules),
                "UpdateRule": unary(pb.UpdateRuleRequest, self.update_rule),
                "DeleteRule": unary(pb.DeleteRuleRequest, self.delete_rule),
                "BackfillRule": unary(pb.BackfillRuleRequest, self.backfill_rule),
                "SampleRuns": server_stream(pb.SampleRunsRequest, self.sample_runs),
                "CompleteSample": unary(pb.CompleteSampleRequest, self.complete_sample),
            },
        )

    async def create_rule(self, request: pb.CreateRuleRequest, call: Caller) -> pb.CreateRuleResponse:
        """See the contract."""
        made = await self._rules.create(call.tenant, check_rule(request.rule, self._may_post))
        return pb.CreateRuleResponse(rule=await self._with_statuses(made, call))

    async def get_rule(self, request: pb.GetRuleRequest, call: Caller) -> pb.GetRuleResponse:
        """See the contract."""
        rule = await self._rules.get(_key(request.rule_id, call))
        return pb.GetRuleResponse(rule=await self._with_statuses(rule, call))

    async def list_rules(self, request: pb.ListRulesRequest, call: Caller) -> pb.ListRulesResponse:
        """See the contract."""
        limit = check_page_size("page_size", request.page_size)
        before = None
        if request.page_token:
            before = self._cursors.read(Listing.RULES, call.tenant, request.page_token, "page_token")
        page = await self._rules.list(call.tenant, limit, before)
        token = ""
        if page.next_position is not None:
            token = self._cursors.issue(Listing.RULES, call.tenant, page.next_position)
        rules = [await self._with_statuses(rule, call) for rule in page.rules]
        return pb.ListRulesResponse(rules=rules, next_page_token=token)

    async def update_rule(self, request: pb.UpdateRuleRequest, call: Caller) -> pb.UpdateRuleResponse:
        """See the contract."""
        rule = await self._rules.update(call.tenant, check_rule(request.rule, self._may_post))
        return pb.UpdateRuleResponse(rule=await self._with_statuses(rule, call))

    async def delete_rule(self, request: pb.DeleteRuleRequest, call: Caller) -> pb.DeleteRuleResponse:
        """See the contract."""
        await self._rules.delete(_key(request.rule_id, call))
        return pb.DeleteRuleResponse()

    async def backfill_rule(self, request: pb.BackfillRuleRequest, call: Caller) -> pb.BackfillRuleResponse:
        """See the contract."""
        key = _key(request.rule_id, call)
        check_enum("mode", request.mode, dict(BackfillMode.items()))
        after = _time_ns("created_after", request.created_after) if request.HasField("created_after") else None
        before = _time_ns("created_before", request.created_before) if request.HasField("created_before") else None
        return pb.BackfillRuleResponse(rule=await self._rules.backfill(key, Window(after, before), request.mode))

    async def sample_runs(self, request: pb.SampleRunsRequest, call: Caller) -> None:
        """See the contract."""
        options = self._sampling_options(request, call)
        with self._desks.at(options.rule) as counter:
            outlet = Outlet(call.write, self._streaming.stall_limit)
            await SampleStream(self._streaming, counter, options, outlet).deliver()

    async def complete_sample(self, request: pb.CompleteSampleRequest, call: Call) -> pb.CompleteSampleResponse:
        """See the contract."""
        key = _key(request.rule_id, call)
        check_id("session_id", request.session_id)
        check_outcome(request)
        if request.WhichOneof("outcome") == "returned" and not request.run_id:
            return await self._end_session(key, request.session_id)
        run_id = check_id("run_id", request.run_id)
        run = await find_ended(self._engine, RunKey(call.tenant, run_id))
        with self._desks.at(key) as counter:
            desk = counter.desk
            await desk.ready()
            rule = desk.entry.record.rule
            if len({*rule.labels, *request.scores.labels}) > MOST_LABELS:
                raise invalid_field("scores.labels", f"must be at most {MOST_LABELS} together with the rule's")
            now_ns = self._clock.time_ns()
            subject = Subject.of(run_id, run, now_ns)
            events = await desk.decide(
                lambda ledger: complete(ledger, desk.entry.record.rule, request, subject, now_ns)
            )
        return pb.CompleteSampleResponse(duplicate=not events)

    async def _with_statuses(self, rule: Rule, call: Caller) -> Rule:
        rule.alert_statuses.extend(await self._statuses_of(call.tenant, rule))
        return rule

    async def _end_session(self, key: RunKey, session_id: str) -> pb.CompleteSampleResponse:
        with self._desks.at(key) as counter:
            await counter.desk.ready()
            events = await counter.desk.decide(lambda ledger: end_session(ledger, session_id))
        return pb.CompleteSampleResponse(duplicate=not events)

    def _sampling_options(self, request: pb.SampleRunsRequest, call: Caller) -> SamplingOptions:
        key = _key(request.rule_id, call)
        session_id = check_id("session_id", request.session_id) if request.session_id else secrets.token_hex(16)
        if request.attempt < 0:
            raise invalid_field("attempt", "must not be negative")
        if not 0 <= request.max_samples <= _MAX_SAMPLES:
            raise invalid_field("max_samples", f"must be 1 to {_MAX_SAMPLES}, or 0 for {_DEFAULT_SAMPLES}")
        position = Position(sequence=0, types=0, created_ns=0)
        if request.resume_token:
            position = self._streaming.tokens.read(request.resume_token, log_of(key))
        remaining = call.time_remaining()
        return SamplingOptions(
            rule=key,
            worker_id=check_id("worker_id", request.worker_id),
            claim=Claim(session_id=session_id, attempt=request.attempt, take_over=request.take_over),
            position=position,
            max_samples=request.max_samples or _DEFAULT_SAMPLES,
            lease=_seconds(request, "lease", _DEFAULT_LEASE, LONGEST_HOLD),
            heartbeat_interval=_seconds(request, "heartbeat_interval", _DEFAULT_HEARTBEAT, _MAX_HEARTBEAT),
            deadline=None if remaining is None else self._clock.monotonic() + remaining,
        )


def _seconds(request: pb.SampleRunsRequest, name: str, default: float, at_most: float) -> float:
    if not request.HasField(name):  # type: ignore[arg-type]
        return default
    return check_seconds(name, getattr(request, name), at_least=1, at_most=at_most)


def _time_ns(path: str, time: Timestamp) -> int:
    check_time(path, time)
    return time.ToNanoseconds()


def _key(rule_id: str, call: Caller) -> RunKey:
    return RunKey(call.tenant, check_rule_id("rule_id", rule_id))
