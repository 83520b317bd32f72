"""Bounds of gRPC calls and of answers that wait for their readers, in all and per address."""

from typing import Any, TypeAlias

from grpc import aio

from lavant.server.rpc.receiving import ReceivingTurns
from lavant.server.streaming.peers import PEER, PeerLimit, address_of

_Context: TypeAlias = aio.ServicerContext[Any, Any]

HEALTH = "/grpc.health.v1.Health/"  # answers load balancers, which have no credentials
PUBLISH = "/lavant.v1.EventService/PublishEvents"
_HEALTH_CALLS = 1_000
_ARRIVING = 64  # requests of up to 4 MiB that are received at a time
_ANSWER_BYTES = 256 << 20
_SMALL = 16 << 10  # bytes of an answer: about what gRPC keeps of a call in any case


class CallLimits:
    """Bounds the calls of all services, in all and per address, from their start until gRPC has done with them.

    A call of which the answer waits for a reader that does not read is not done. Health checks have a bound of their
    own, so that they are answered when there are too many other calls. So have publishing calls, within that of all:
    each of them waits for a message all the time, of which gRPC keeps up to 4 MiB before it is whole.
    """

    def __init__(self, calls: int, publishing_calls: int, share: float) -> None:
        self._calls = PeerLimit(calls, share, "calls", "calls are open")
        self._publishing = PeerLimit(publishing_calls, share, "publishing_calls", "publishing calls are open")
        self._health = PeerLimit(_HEALTH_CALLS, share, "health_checks", "health checks are open")
        self._answers = PeerLimit(_ANSWER_BYTES, share, "answer_bytes", "bytes of answers wait for their readers")
        self.receiving = ReceivingTurns(_ARRIVING, share)

    def of_method(self, method: str) -> tuple[PeerLimit, ...]:
        """Return the bounds that the calls of a method count for."""
        if method.startswith(HEALTH):
            return (self._health,)
        return (self._calls, self._publishing) if method == PUBLISH else (self._calls,)

    def enter(self, limits: tuple[PeerLimit, ...], context: _Context) -> None:
        """Count a call until gRPC has done with it, and note its address. Raises QUOTA_EXCEEDED."""
        address = address_of(context.peer())
        PEER.set(address)
        for limit in limits:
            self._hold(limit, address, 1, context)

    def enter_answer(self, answer: object, context: _Context) -> None:
        """Count the bytes of a call's answer until gRPC has done with it. Raises QUOTA_EXCEEDED."""
        if isinstance(answer, bytes) and len(answer) > _SMALL:
            self._hold(self._answers, PEER.get(), len(answer), context)

    def _hold(self, limit: PeerLimit, address: str, amount: int, context: _Context) -> None:
        limit.enter(address, amount)
        context.add_done_callback(lambda _: limit.leave(address, amount))  # type: ignore[arg-type]  # not typed as called
