"""The connection to NATS: requests with one answer or many, and messages that may get lost."""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from itertools import count
from typing import Any, TypeVar

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error, NoServersError

REQUEST_LIMIT = 2.0  # seconds to an answer; a cluster that elects a leader gives none
_CONNECT_LIMIT = 2  # seconds to a server; the next one is tried then
_PENDING_BYTES = 64 << 20
_STATUS = "Status"
_WHOLE = ("204", "404")  # end of a batch, and nothing found
_NO_RESPONDERS = "503"

_BEGIN_LIMIT = 15.0  # seconds for a cluster that has just begun to find its servers and the streams' leaders
_PAUSE = 0.2
_Answer = TypeVar("_Answer")

logger = logging.getLogger(__name__)


class Unanswered(Exception):
    """NATS did not answer: whether it did what was asked is not known."""


async def patiently(ask: Callable[[], Awaitable[_Answer]]) -> _Answer:
    """Ask what may be asked twice, again while nobody answers: NATS may have begun just now, or made a stream."""
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
    """NATS said no; `code` is JetStream's err_code."""

    def __init__(self, error: Mapping[str, Any]) -> None:
        super().__init__(error.get("description", "JetStream refused"))
        self.code = int(error.get("err_code", 0))


class Connection:
    """A connection that comes back by itself, for as long as it is open."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._inbox = client.new_inbox()
        self._tokens = count()
        self._waiting: dict[str, Callable[[Msg], None]] = {}
        self._last_error: Exception | None = None
        self._opened = False
        self.on_reconnect: Callable[[], None] = lambda: None

    @classmethod
    async def open(cls, servers: Sequence[str]) -> "Connection":
        """Connect, or raise Unanswered."""
        client = Client()
        connection = cls(client)
        try:
            async with asyncio.timeout(_CONNECT_LIMIT * len(servers) + 1):
                await client.connect(
                    list(servers),
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
                )
                inbox = await client.subscribe(f"{connection._inbox}.*", cb=connection._answered)
                inbox._pending_bytes_limit = 0  # every answer was asked for
        except (TimeoutError, OSError, Error, NoServersError) as error:
            client.options["allow_reconnect"] = False
            await client.close()
            raise Unanswered(str(connection._last_error or error) or "no answer") from error
        connection._opened = True
        return connection

    @property
    def max_payload(self) -> int:
        """The largest message that the servers take, in bytes."""
        return int(self._client.max_payload)

    @property
    def server_version(self) -> tuple[int, int]:
        """The version of the server that is connected to."""
        version = self._client.connected_server_version
        return version.major, version.minor

    async def request(
        self, subject: str, payload: bytes = b"", headers: dict[str, str] | None = None, limit: float = REQUEST_LIMIT
    ) -> Msg:
        """Ask, and wait for the one answer; raises Unanswered."""
        answer: asyncio.Future[Msg] = asyncio.get_running_loop().create_future()

        def take(message: Msg) -> None:
            if not answer.done():
                answer.set_result(message)

        message: Msg = await self._ask(subject, payload, headers, take, answer, limit)
        if status_of(message) == _NO_RESPONDERS:
            raise Unanswered(f"nobody answers {subject}")
        return message

    async def collect(self, subject: str, payload: bytes) -> list[Msg]:
        """Ask, and gather all answers up to the one with a status, which is the last; raises Unanswered."""
        answers: list[Msg] = []
        done: asyncio.Future[list[Msg]] = asyncio.get_running_loop().create_future()

        def take(message: Msg) -> None:
            answers.append(message)
            if status_of(message) and not done.done():
                done.set_result(answers)

        await self._ask(subject, payload, None, take, done, REQUEST_LIMIT)
        status = status_of(answers[-1])
        if status not in _WHOLE:  # a refusal, or nobody is there: no answer is no empty answer
            raise Unanswered(f"{subject} answered with status {status}")
        return answers

    async def api(self, call: str, /, *, limit: float = REQUEST_LIMIT, **body: Any) -> dict[str, Any]:
        """Ask JetStream's API; raises Refused or Unanswered."""
        message = await self.request(f"$JS.API.{call}", json.dumps(body).encode(), limit=limit)
        answer: dict[str, Any] = json.loads(message.data)
        if error := answer.get("error"):
            raise Refused(error)
        return answer

    async def tell(self, subject: str, payload: bytes) -> None:
        """Send a message that may get lost."""
        try:
            await self._client.publish(subject, payload)
        except Error:
            logger.debug("a message to %s was lost", subject, exc_info=True)

    async def listen(self, subject: str, callback: Callable[[Msg], Awaitable[None]]) -> Subscription:
        """Hear what is told on a subject; raises Unanswered."""
        try:
            return await self._client.subscribe(subject, cb=callback)
        except Error as error:
            raise Unanswered(str(error)) from error

    async def stop_listening(self, subscription: Subscription) -> None:
        """Hear no more."""
        with suppress(Error):
            await subscription.unsubscribe()

    async def close(self) -> None:
        """Send what is queued, and disconnect."""
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
    """The status that ends an answer, or tells why there is none."""
    return message.headers.get(_STATUS) if message.headers else None
