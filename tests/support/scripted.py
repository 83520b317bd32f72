"""A gRPC server that follows a test's script, call by call: for what a good server never does."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol

import grpc
import grpc.aio
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from lavant.client import AsyncClient
from lavant.contract.status import ERROR_DOMAIN
from lavant.v1 import event_service_pb2 as pb
from lavant.v1.event_pb2 import Event, TextDelta
from lavant.v1.run_pb2 import RUN_STATE_SUCCEEDED, Run, RunFinished

Context = grpc.aio.ServicerContext[Any, Any]
StreamAct = Callable[[pb.StreamEventsRequest, Context], AsyncIterator[pb.StreamEventsResponse]]
UnaryAct = Callable[[bytes, Context], Awaitable[Message]]
PublishAct = Callable[[AsyncIterator[pb.PublishEventsRequest], Context], AsyncIterator[pb.PublishEventsResponse]]


class Script:
    """Plays one act a call, and remembers what it was asked, by whom and with which credential.

    `unary` has the acts of further methods, by names such as "lavant.v1.RunService/WaitRun": one for all of its calls.
    """

    def __init__(
        self,
        streams: Sequence[StreamAct] = (),
        publishes: Sequence[PublishAct] = (),
        unary: Mapping[str, UnaryAct] | None = None,
    ) -> None:
        self.requests: list[pb.StreamEventsRequest] = []
        self.peers: list[str] = []
        self.credentials: list[str] = []
        self.calls: list[str] = []
        self.batches: list[list[pb.ProducerBatch]] = []
        self._streams = iter(streams)
        self._publishes = iter(publishes)
        self._unary = unary or {}

    def handlers(self) -> Iterator[grpc.GenericRpcHandler]:
        """What to serve."""
        stream = grpc.unary_stream_rpc_method_handler(
            self._stream, pb.StreamEventsRequest.FromString, pb.StreamEventsResponse.SerializeToString
        )
        publish = grpc.stream_stream_rpc_method_handler(
            self._publish, pb.PublishEventsRequest.FromString, pb.PublishEventsResponse.SerializeToString
        )
        append = grpc.unary_unary_rpc_method_handler(
            self._append, pb.AppendEventsRequest.FromString, pb.AppendEventsResponse.SerializeToString
        )
        events: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "StreamEvents": stream,
            "PublishEvents": publish,
            "AppendEvents": append,
        }
        yield grpc.method_handlers_generic_handler("lavant.v1.EventService", events)
        for name, act in self._unary.items():
            service, _, method = name.partition("/")
            handler: grpc.RpcMethodHandler[Any, Any] = grpc.unary_unary_rpc_method_handler(
                self._noting(act), None, _serialize
            )
            yield grpc.method_handlers_generic_handler(service, {method: handler})

    def _noting(self, act: UnaryAct) -> UnaryAct:
        async def play(request: bytes, context: Context) -> Message:
            self._note(context)
            return await act(request, context)

        return play

    def _note(self, context: Context) -> None:
        self.peers.append(context.peer())
        sent = dict(context.invocation_metadata() or ())
        self.credentials.append(str(sent.get("authorization", "")).removeprefix("Bearer "))

    async def _stream(self, request: Any, context: Any) -> AsyncIterator[pb.StreamEventsResponse]:
        self.requests.append(request)
        self._note(context)
        async for frame in next(self._streams)(request, context):
            yield frame

    async def _publish(
        self, requests: Any, context: Any, *, name: str = "PublishEvents"
    ) -> AsyncIterator[pb.PublishEventsResponse]:
        self.calls.append(name)
        self._note(context)
        batches: list[pb.ProducerBatch] = []
        self.batches.append(batches)

        async def noted() -> AsyncIterator[pb.PublishEventsRequest]:
            async for request in requests:
                batches.extend(request.batches)
                yield request

        async for response in next(self._publishes)(noted(), context):
            yield response

    async def _append(self, request: Any, context: Any) -> pb.AppendEventsResponse:
        """Play an act with the one batch; a call that it ends without an answer is cut."""

        async def requests() -> AsyncIterator[pb.PublishEventsRequest]:
            yield pb.PublishEventsRequest(batches=[request.batch])

        async for response in self._publish(requests(), context, name="AppendEvents"):
            for answer in response.answers:
                if answer.HasField("rejection"):
                    await abort(context, answer.rejection)
                return pb.AppendEventsResponse(receipt=answer.receipt)
        await abort(context, status(grpc.StatusCode.UNAVAILABLE))
        raise AssertionError


class Served(Protocol):
    """What `played` serves."""

    def handlers(self) -> Iterable[grpc.GenericRpcHandler]:
        """Return the handlers of its methods."""
        ...


@asynccontextmanager
async def scripted(script: Served, *, options: Sequence[tuple[str, Any]] = ()) -> AsyncIterator[str]:
    """Serve a script, and yield the address."""
    server = grpc.aio.server(options=options)
    server.add_generic_rpc_handlers(tuple(script.handlers()))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


@asynccontextmanager
async def played(script: Served) -> AsyncIterator[AsyncClient]:
    """Serve a script, and yield a client of it."""
    async with scripted(script) as target, AsyncClient(target) as client:
        yield client


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()


def status(code: grpc.StatusCode, reason: str = "", message: str = "said", **metadata: str) -> Status:
    """A google.rpc.Status, with a reason of lavant's if there is one."""
    built = Status(code=code.value[0], message=message)
    if reason:
        detail = AnyMessage()
        detail.Pack(ErrorInfo(domain=ERROR_DOMAIN, reason=reason, metadata=metadata))
        built.details.append(detail)
    return built


async def abort(context: Context, refusal: Status) -> None:
    """End a call with a status."""
    await context.abort_with_status(rpc_status.to_status(refusal))


def opened(heartbeat_ms: int = 15_000) -> pb.StreamEventsResponse:
    """The first frame."""
    frame = pb.StreamEventsResponse(resume_token="t0", opened=pb.StreamOpened(run=Run(run_id="r"), start_token="t0"))
    frame.opened.heartbeat_interval.FromMilliseconds(heartbeat_ms)
    return frame


def events(*sequences: int, last: bool = False) -> pb.StreamEventsResponse:
    """A frame of text deltas; the last of them may be RunFinished instead. Its token names its last sequence."""
    made = [Event(sequence=number, text_delta=TextDelta(message_id="m", text=str(number))) for number in sequences]
    if last:
        made[-1] = Event(sequence=sequences[-1], run_finished=RunFinished(state=RUN_STATE_SUCCEEDED))
    return pb.StreamEventsResponse(resume_token=f"t{sequences[-1]}", events=pb.EventBatch(events=made))


def end(reason: "pb.StreamEndReason.ValueType", *, reconnect: bool = False) -> pb.StreamEventsResponse:
    """The last frame."""
    return pb.StreamEventsResponse(resume_token="te", end=pb.StreamEnd(reason=reason, reconnect=reconnect))
