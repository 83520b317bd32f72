"""Stored messages: published by compare-and-swap, read from the leader to decide or from any server to deliver."""

import asyncio
import json
from base64 import b64decode
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from nats.aio.msg import Msg

from lavant.server.errors import ServiceError
from lavant.server.store.jetstream.connection import REQUEST_LIMIT, Connection, Refused, Unanswered, status_of
from lavant.v1.error_pb2 import ErrorReason

# JetStream's err_codes, from https://github.com/nats-io/nats-server/blob/main/server/errors.json
_WRONG_LAST, _IN_FLIGHT = 10071, 10164
_NOT_FOUND = 10037
_NO_ROOM = {10023, 10047, 10054, 10077}  # limits of the server, the account, a message, the stream
_FULL_BATCH = 1_000
_READS_AT_ONCE = 16  # NATS disconnects a client with more than 64 MiB of pending messages
_AGAIN = 0.002  # seconds until a concurrent write may be decided


class Conflict(Exception):
    """Another message was stored first: nothing was published."""


class Message(NamedTuple):
    """Message at a sequence of a stream."""

    sequence: int
    subject: str
    data: bytes
    time_ns: int


class Messages:
    """Publisher and reader of messages. All methods raise Unanswered if NATS does not answer."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._reads = asyncio.Semaphore(_READS_AT_ONCE)

    async def publish(
        self,
        subject: str,
        data: bytes,
        expected: int,
        *,
        among: str | None = None,
        ttl: float | None = None,
        alone: bool = False,
    ) -> int:
        """Store a message if the last one on its subject has a certain sequence; 0: if there is none.

        `among` widens the comparison to a filter of subjects. With `ttl`, in seconds, the message expires; with
        `alone` it replaces all messages on its subject. Returns its sequence. Raises Conflict, or QUOTA_EXCEEDED
        if the store is full.
        """
        headers = {"Nats-Expected-Last-Subject-Sequence": str(expected)}
        if among is not None:
            headers["Nats-Expected-Last-Subject-Sequence-Subject"] = among
        if ttl is not None:
            headers["Nats-TTL"] = f"{max(1, round(ttl))}s"
        if alone:
            headers["Nats-Rollup"] = "sub"
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + REQUEST_LIMIT
        while True:
            answer = json.loads((await self._connection.request(subject, data, headers)).data)
            error = answer.get("error")
            if error is None:
                return int(answer["seq"])
            if error.get("err_code") != _IN_FLIGHT:
                raise _refusal(error)
            if loop.time() > give_up_at:
                raise Unanswered("another write to the subject stays in flight")
            await asyncio.sleep(_AGAIN)

    async def last(self, stream: str, subject: str) -> Message | None:
        """Read the last message on a subject from the stream's leader."""
        try:
            answer = await self._connection.api(f"STREAM.MSG.GET.{stream}", last_by_subj=subject)
        except Refused as refusal:
            if refusal.code == _NOT_FOUND:
                return None
            raise Unanswered(str(refusal)) from refusal
        found = answer["message"]
        return Message(found["seq"], found["subject"], b64decode(found.get("data", "")), _nanoseconds(found["time"]))

    async def next(self, stream: str, subject: str, sequence: int) -> Message | None:
        """Read the first message on a subject at or after a sequence, from any server, which may lag."""
        answer = await self._connection.request(_direct(stream), _json(seq=sequence, next_by_subj=subject))
        return None if status_of(answer) else _message(answer)

    async def following(self, stream: str, subject: str, sequence: int, max_bytes: int) -> list[Message]:
        """Read messages on a subject, from a sequence on, from any server, which may lag.

        Returns whole messages without gaps, of about `max_bytes` in all, at least one if there is any.
        """
        asked = _json(seq=sequence, next_by_subj=subject, batch=_FULL_BATCH, max_bytes=max_bytes)
        async with self._reads:
            answers = await self._connection.collect(_direct(stream), asked)
        before = "0"
        for answer in answers[:-1]:
            if _header(answer, "Nats-Last-Sequence") != before:
                raise Unanswered("a part of an answer is missing")
            before = _header(answer, "Nats-Sequence")
        if len(answers) > 1 and _header(answers[-1], "Nats-Last-Sequence") != before:
            raise Unanswered("the end of an answer is missing")
        return [_message(answer) for answer in answers[:-1]]

    async def latest(self, stream: str, subjects: Sequence[str]) -> list[Message]:
        """Read the last message on each of some subjects, from any server, which may lag."""
        answers = await self._connection.collect(_direct(stream), _json(multi_last=list(subjects)))
        return [_message(answer) for answer in answers[:-1]]

    async def advance(self, stream: str, sequence: int) -> None:
        """Delete all messages before a sequence. Later ones get that sequence or higher, even in an empty stream."""
        try:
            await self._connection.api(f"STREAM.PURGE.{stream}", seq=sequence)
        except Refused as refusal:
            raise Unanswered(str(refusal)) from refusal

    async def purge(self, stream: str, subject: str, before: int) -> None:
        """Delete the messages on a subject that are before a sequence. May be called repeatedly."""
        try:
            await self._connection.api(f"STREAM.PURGE.{stream}", filter=subject, seq=before)
        except Refused as refusal:
            raise Unanswered(str(refusal)) from refusal


def _refusal(error: dict[str, Any]) -> Exception:
    code = error.get("err_code")
    if code == _WRONG_LAST:
        return Conflict()
    if code in _NO_ROOM:
        return ServiceError(
            ErrorReason.ERROR_REASON_QUOTA_EXCEEDED, "the store has no room left; try again later", retry_after=5.0
        )
    return Unanswered(f"JetStream answered {error.get('description')} ({code})")


def _direct(stream: str) -> str:
    return f"$JS.API.DIRECT.GET.{stream}"


def _json(**body: object) -> bytes:
    return json.dumps(body).encode()


def _message(answer: Msg) -> Message:
    sequence = int(_header(answer, "Nats-Sequence"))
    return Message(
        sequence, _header(answer, "Nats-Subject"), answer.data, _nanoseconds(_header(answer, "Nats-Time-Stamp"))
    )


def _header(answer: Msg, name: str) -> str:
    return (answer.headers or {}).get(name, "")


def _nanoseconds(time: str) -> int:
    """Parse a time as JetStream formats it, with up to nine digits of a second."""
    whole, _, fraction = time.rstrip("Z").partition(".")
    return int(datetime.fromisoformat(f"{whole}+00:00").timestamp()) * 1_000_000_000 + int(fraction.ljust(9, "0"))
