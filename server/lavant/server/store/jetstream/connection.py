"""Connection to NATS: requests with one answer or many, and messages that may be lost."""

import asyncio
import json
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from itertools import count
from typing import Any, TypeVar

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error, NoServersError

from lavant.server.store.jetstream.location import Location

REQUEST_LIMIT = 2.0  # seconds to an answer; a cluster does not answer while it elects a leader
_CONNECT_LIMIT = 2  # seconds to connect to a server, before the next one is tried
_PENDING_BYTES = 64 << 20
_STATUS = "Status"
_WHOLE = ("204", "404")  # statuses for the end of a batch, and for nothing found
_NO_RESPONDERS = "503"

_BEGIN_LIMIT = 15.0  # seconds for a starting cluster to find its servers and elect the streams' leaders
_PAUSE = 0.2
_Answer = TypeVar("_Answer")

logger = logging.getLogger(__name__)


class Unanswered(Exception):
    """NATS did not answer: whether it executed the request is unknown."""


async def patiently(ask: Callable[[], Awaitable[_Answer]]) -> _Answer:
    """Retry an idempotent request until it is answered: NATS may just have started, or created a stream."""
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + _BEGIN_LIMIT
    while True:
        try:
            return await ask()
        except Unanswered:
            if loop.time() > give_up_at:
                raise
        await asyncio.sleep(_PAUSE)


class Refused(Exception):
    """NATS refused a request; `code` is JetStream's err_code."""

    def __init__(self, error: Mapping[str, Any]) -> None:
        super().__init__(error.get("description", "JetStream refused"))
        self.code = int(error.get("err_code", 0))


class _TLSClient(Client):
    """Client that sends nothing over a connection without TLS, also if the server, or who speaks for it, has none."""

    def _connect_command(self) -> bytes:
        if not self._server_info.get("tls_required"):
            raise Error("the server has no TLS, which --nats-ca demands")
        # nats-py starts TLS with the protocol of a plain connection, which makes asyncio warn of each end of one.
        transport: Any = self._transport
        protocol = transport._io_writer.transport.get_protocol()
        if protocol is not None:  # else the server has closed the connection already
            protocol._over_ssl = True
        command: bytes = super()._connect_command()
        return command


class Connection:
    """Connection that reconnects by itself until it is closed."""

    def __init__(self, client: Client, name: str) -> None:
        self._client = client
        # Below a prefix of the store's own, so that permissions keep other users of NATS from reading the answers.
        self._inbox = f"_INBOX.{name}.{secrets.token_hex(8)}"
        self._tokens = count()
        self._waiting: dict[str, Callable[[Msg], None]] = {}
        self._last_error: Exception | None = None
        self._opened = False
        self.on_reconnect: Callable[[], None] = lambda: None

    @classmethod
    async def open(cls, location: Location) -> "Connection":
        """Connect to the servers of a store, or raise Unanswered; ValueError if files of its access cannot be used."""
        options = location.access.options()
        client = _TLSClient() if "tls" in options else Client()
        connection = cls(client, location.name)
        try:
            async with asyncio.timeout(_CONNECT_LIMIT * len(location.servers) + 1):
                await client.connect(
                    list(location.servers),
                    name="lavant",
                    no_echo=True,
                    connect_timeout=_CONNECT_LIMIT,
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=1,
                    ping_interval=10,
                    pending_size=_PENDING_BYTES,
                    error_cb=connection._failed,
                    disconnected_cb=connection._disconnected,
                    reconnected_cb=connection._reconnected,
                    **options,
                )
                # No bound on pending messages: every answer was requested.
                await client.subscribe(f"{connection._inbox}.*", cb=connection._answered, pending_bytes_limit=0)
        except (TimeoutError, OSError, Error, NoServersError) as error:
            client.options["allow_reconnect"] = False
            await client.close()
            raise Unanswered(str(connection._last_error or error) or "no answer") from error
        connection._opened = True
        return connection

    @property
    def max_payload(self) -> int:
        """Maximum size of a message that the servers accept, in bytes."""
        return int(self._client.max_payload)

    @property
    def server_version(self) -> tuple[int, int]:
        """Version of the connected server."""
        version = self._client.connected_server_version
        return version.major, version.minor

    async def request(
        self, subject: str, payload: bytes = b"", headers: dict[str, str] | None = None, limit: float = REQUEST_LIMIT
    ) -> Msg:
        """Send a request and return its answer. Raises Unanswered."""
        answer: asyncio.Future[Msg] = asyncio.get_running_loop().create_future()

        def take(message: Msg) -> None:
            if not answer.done():
                answer.set_result(message)

        message: Msg = await self._ask(subject, payload, headers, take, answer, limit)
        if status_of(message) == _NO_RESPONDERS:
            raise Unanswered(f"nobody answers {subject}")
        return message

    async def collect(self, subject: str, payload: bytes) -> list[Msg]:
        """Send a request and return its answers, up to the one with a status, which is the last. Raises Unanswered."""
        answers: list[Msg] = []
        done: asyncio.Future[list[Msg]] = asyncio.get_running_loop().create_future()

        def take(message: Msg) -> None:
            answers.append(message)
            if status_of(message) and not done.done():
                done.set_result(answers)

        await self._ask(subject, payload, None, take, done, REQUEST_LIMIT)
        status = status_of(answers[-1])
        if status not in _WHOLE:  # a refusal, or no responder: not the same as an empty answer
            raise Unanswered(f"{subject} answered with status {status}")
        return answers

    async def api(self, call: str, /, *, limit: float = REQUEST_LIMIT, **body: Any) -> dict[str, Any]:
        """Call JetStream's API. Raises Refused or Unanswered."""
        message = await self.request(f"$JS.API.{call}", json.dumps(body).encode(), limit=limit)
        answer: dict[str, Any] = json.loads(message.data)
        if error := answer.get("error"):
            raise Refused(error)
        return answer

    async def notify(self, subject: str, payload: bytes) -> None:
        """Send a message that may be lost."""
        try:
            await self._client.publish(subject, payload)
        except Error:
            logger.debug("a message to %s was lost", subject, exc_info=True)

    async def listen(self, subject: str, callback: Callable[[Msg], Awaitable[None]]) -> Subscription:
        """Call back for each message on a subject. Raises Unanswered."""
        try:
            return await self._client.subscribe(subject, cb=callback)
        except Error as error:
            raise Unanswered(str(error)) from error

    async def stop_listening(self, subscription: Subscription) -> None:
        """Stop calling back for a subscription."""
        with suppress(Error):
            await subscription.unsubscribe()

    async def close(self) -> None:
        """Send queued messages, and disconnect."""
        await self._client.close()

    async def _ask(
        self,
        subject: str,
        payload: bytes,
        headers: dict[str, str] | None,
        take: Callable[[Msg], None],
        answered: "asyncio.Future[Any]",
        limit: float,
    ) -> Any:
        if not self._client.is_connected:
            raise Unanswered("NATS is out of reach")
        token = str(next(self._tokens))
        self._waiting[token] = take
        try:
            async with asyncio.timeout(limit):
                await self._client.publish(subject, payload, f"{self._inbox}.{token}", headers)
                return await answered
        except (TimeoutError, Error) as error:
            raise Unanswered(f"no answer to {subject}") from error
        finally:
            del self._waiting[token]

    async def _answered(self, message: Msg) -> None:
        take = self._waiting.get(message.subject.rpartition(".")[2])
        if take is not None:
            take(message)

    async def _failed(self, error: Exception) -> None:
        self._last_error = error
        if self._opened:
            logger.warning("NATS: %s", error or type(error).__name__)

    async def _disconnected(self) -> None:
        if self._opened and not self._client.is_closed:
            logger.warning("NATS is out of reach")

    async def _reconnected(self) -> None:
        logger.warning("NATS is in reach again")
        self.on_reconnect()


def status_of(message: Msg) -> str | None:
    """Return the status that ends an answer, or says why there is none; None for a message without status."""
    return message.headers.get(_STATUS) if message.headers else None
