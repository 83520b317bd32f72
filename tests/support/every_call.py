"""A request of every RPC, about things of one ID, and what it is answered with."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message
from google.rpc.status_pb2 import Status
from grpc import aio

from lavant.contract.status import STATUS_DETAILS_KEY
from lavant.v1 import (
    access_service_pb2,
    evaluation_service_pb2,
    event_service_pb2,
    rule_service_pb2,
    run_service_pb2,
    score_service_pb2,
)
from support.calls import PATIENCE
from support.events import a_run_of, batch_of
from support.rules import a_rule
from support.scores import score
from support.server import Stubs
from support.status import Refusal

SERVICES = {
    "runs": run_service_pb2,
    "events": event_service_pb2,
    "rules": rule_service_pb2,
    "evaluations": evaluation_service_pb2,
    "scores": score_service_pb2,
    "access": access_service_pb2,
}
RPCS = {
    method.name: (name, f"/{service.full_name}/{method.name}")
    for name, module in SERVICES.items()
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}


def _filter(name: str) -> score_service_pb2.ScoreFilter:
    return score_service_pb2.ScoreFilter(rule_ids=[name], subject_run_id=name)


# For each RPC the fields of a request that names something by its ID. Those that create come last.
REQUESTS: dict[str, Callable[[str], dict[str, Any]]] = {
    "GetRun": lambda name: {"run_id": name},
    "ListRuns": lambda name: {"filter": run_service_pb2.RunFilter(parent_run_id=name)},
    "WaitRun": lambda name: {"run_id": name, "timeout": {"seconds": 1}},
    "WatchRuns": lambda name: {"filter": run_service_pb2.RunFilter(conversation_id=name)},
    "CancelRun": lambda name: {"run_id": name},
    "DeleteRun": lambda name: {"run_id": name},
    "StreamEvents": lambda name: {"run_id": name, "consumer_id": "ui", "session_id": "other", "take_over": True},
    "ListEvents": lambda name: {"run_id": name},
    "AppendEvents": lambda name: {"batch": batch_of([], run_id=name, epoch=2**62)},
    "PublishEvents": lambda name: {"batches": [batch_of(a_run_of(2, finished=False), run_id=name)]},
    "GetRule": lambda name: {"rule_id": name},
    "ListRules": lambda _: {},
    "UpdateRule": lambda name: {"rule": a_rule(name, salt="other")},
    "DeleteRule": lambda name: {"rule_id": name},
    "BackfillRule": lambda name: {"rule_id": name},
    "SampleRuns": lambda name: {"rule_id": name, "worker_id": "w", "session_id": "session", "take_over": True},
    "CompleteSample": lambda name: {
        "rule_id": name,
        "run_id": name,
        "session_id": "session",
        "returned": evaluation_service_pb2.SampleReturn(),
    },
    "RecordScore": lambda name: {"score_id": name, "run_id": name, "score": score()},
    "ListScores": lambda name: {"filter": _filter(name)},
    "QueryScores": lambda name: {"filter": _filter(name)},
    "CompareScores": lambda name: {"baseline": _filter(name), "candidate": _filter(name)},
    "GetPrincipal": lambda _: {},
    "ListKeys": lambda name: {"tenant": name},
    "RevokeKey": lambda name: {"key_id": name},
    "CreateAccessToken": lambda name: {"restriction": {"run_ids": [name]}},
    "CreateKey": lambda name: {"key": {"name": "agent", "tenant": name, "scopes": ["runs:read"]}},
    "CreateRun": lambda name: {"run_id": name, "settings": {"name": "weather"}},
    "CreateRule": lambda name: {"rule": a_rule(name)},
}


@dataclass(frozen=True, slots=True)
class Answer:
    """How an RPC was answered: its messages as text, or the refusal."""

    text: str
    refusal: Refusal | None = None

    @property
    def reason(self) -> str:
        """The reason of the refusal; "" for an answer."""
        return "" if self.refusal is None else self.refusal.reason


async def answer_of(stubs: Stubs, rpc: str, fields: dict[str, Any]) -> Answer:
    """Call an RPC and return the whole answer; streams are read until they have caught up."""
    service, _ = RPCS[rpc]
    request = getattr(SERVICES[service], f"{rpc}Request")(**fields)
    method = getattr(getattr(stubs, service), rpc)
    try:
        if rpc == "PublishEvents":
            call = method(timeout=PATIENCE)
            await call.write(request)
            await call.done_writing()
            return Answer(str([frame async for frame in call]))
        if rpc not in ("StreamEvents", "SampleRuns", "WatchRuns"):
            return Answer(str(await method(request, timeout=PATIENCE)))
        call = method(request, timeout=PATIENCE)
        frames: list[Message] = []
        while (frame := await call.read()) is not aio.EOF:
            frames.append(frame)
            if frame.caught_up:
                break
        call.cancel()
        return Answer(str(frames))
    except aio.AioRpcError as error:
        return refusal_of(error)


def refusal_of(error: aio.AioRpcError) -> Answer:
    """Return the answer that a status is, with all its details as text."""
    details = Status.FromString(bytes(dict(iter(error.trailing_metadata())).get(STATUS_DETAILS_KEY, b"")))
    refusal = Refusal()
    refusal.read(error)
    return Answer(f"{error.code()} {error.details()} {details}", refusal)
