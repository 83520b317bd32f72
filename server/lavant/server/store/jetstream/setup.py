"""Setup of a store's streams: created where they are missing, checked where they exist."""

import json
import logging
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from lavant.server.store import token_keys
from lavant.server.store.jetstream.connection import Connection, Refused, Unanswered, patiently
from lavant.server.store.jetstream.location import PARTITIONS, Location
from lavant.server.store.jetstream.messages import Conflict, Messages
from lavant.server.store.port import StoreIdentity
from lavant.server.store.token_keys import TokenKey

MIN_PAYLOAD = 4 << 20  # a batch of 1 MiB, as much for its run's result, and the open parts of the run
_VERSION = 1
_MINIMUM_SERVER = (2, 12)  # before: no compare-and-swap over a filter of subjects during concurrent writes
_ANSWER_LIMIT = 3.0  # seconds before a request is repeated: during an election it is never answered
_NAME_IN_USE, _NOT_FOUND, _NOT_CLUSTERED, _NO_PEERS = 10058, 10059, 10074, 10005

logger = logging.getLogger(__name__)


class StoreUnusable(Exception):
    """NATS cannot serve as a store; the message says why and what to do."""


class ServersMissing(StoreUnusable, Unanswered):
    """The cluster has too few servers for the store, or has not found all of them yet."""


class Limits(NamedTuple):
    """Limits of a store. `replicas`: copies of each stream; None: 3 in a cluster, else 1. `max_bytes`: of all logs."""

    replicas: int | None = None
    max_bytes: int | None = None


async def prepare(
    connection: Connection, location: Location, limits: Limits, identity: StoreIdentity | None = None
) -> StoreIdentity:
    """Create the missing streams of a store, check them, and return the store's identity.

    A new store gets `identity`; None: a new one. Logs a warning for each weakness of its guarantees. Waits for a
    cluster that has just started. Raises StoreUnusable, or Unanswered if NATS does not answer.
    """
    wanted = identity or new_identity()
    return await patiently(lambda: _prepare(connection, location, limits, wanted))


async def _prepare(
    connection: Connection, location: Location, limits: Limits, identity: StoreIdentity
) -> StoreIdentity:
    _check_server(connection)
    weak: set[str] = set()
    for wanted in stream_configs(location, limits):
        found = await _find(connection, wanted["name"]) or await _create(connection, wanted)
        for problem in problems(wanted, found):
            raise StoreUnusable(f"stream {wanted['name']} {problem}")
        weak.update(weaknesses(found))
    for weakness in sorted(weak):
        logger.warning("the store %s", weakness)
    return await _identify(Messages(connection), location, identity)


async def examine(connection: Connection, location: Location) -> list[str]:
    """Return the problems and weaknesses of a store, a sentence each, without changing it. Raises Unanswered."""
    findings = []
    try:
        _check_server(connection)
    except StoreUnusable as error:
        findings.append(str(error))
    for wanted in stream_configs(location, Limits()):
        found = await _find(connection, wanted["name"])
        if found is None:
            findings.append(f"stream {wanted['name']} is missing; run `lavant store init`")
        else:
            told = (*problems(wanted, found), *weaknesses(found))
            findings += [f"stream {wanted['name']} {finding}" for finding in told]
    return findings


def stream_configs(location: Location, limits: Limits) -> list[dict[str, Any]]:
    """Return the configurations of a store's streams, in the form of JetStream's API."""
    common = {
        "retention": "limits",
        "storage": "file",
        "num_replicas": limits.replicas or 3,
        "allow_direct": True,
        "allow_msg_ttl": True,
        "duplicate_window": 1_000_000_000,  # nanoseconds; NATS's minimum, since Nats-Msg-Id is not used
    }
    log = {**common, "discard": "new", "allow_rollup_hdrs": True}
    if limits.max_bytes is not None:
        log["max_bytes"] = max(1, limits.max_bytes // PARTITIONS)
    configs = [
        {**log, "name": stream, "subjects": [location.log_subjects(partition)]}
        for partition, stream in enumerate(location.log_streams)
    ]
    single = {**common, "discard": "old", "max_msgs_per_subject": 1}
    # Fences are sequences of this stream: they must grow even if it was deleted and is created again.
    leases = {"name": location.lease_stream, "subjects": [f"{location.name}.lease.*"]}
    configs.append({**single, **leases, "first_seq": time.time_ns() // 1_000})
    configs.append({**single, "name": location.meta_stream, "subjects": [location.identity]})
    return configs


def problems(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[str]:
    """Yield the reasons for which an existing stream must not be used."""
    if found.get("persist_mode") == "async":
        yield "acknowledges what is not stored yet (persist_mode: async); create it again with the default"
    if found.get("storage") != "file":
        yield "keeps its messages in memory; create it again with storage: file"
    if found.get("max_age"):
        yield "lets messages expire (max_age); take that away"
    for name in ("subjects", "retention", "discard", "allow_direct", "allow_msg_ttl", "allow_rollup_hdrs"):
        if found.get(name) != wanted.get(name, found.get(name)):
            yield f"has {name}: {found.get(name)}, where {wanted[name]} is needed"
    if found.get("max_msgs_per_subject", -1) != wanted.get("max_msgs_per_subject", -1):
        yield f"has max_msgs_per_subject: {found.get('max_msgs_per_subject')}"
    if found.get("max_msgs", -1) > 0 or found.get("no_ack"):
        yield "has max_msgs or no_ack set; take that away"


def weaknesses(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield the reasons for which a stream loses its guarantees if one machine fails."""
    replicas = found.get("num_replicas", 1)
    if replicas < 3:
        yield f"has num_replicas: {replicas}: what was acknowledged may be lost with a disk; use a cluster of 3"


def _check_server(connection: Connection) -> None:
    if connection.max_payload < MIN_PAYLOAD:
        raise StoreUnusable(
            f"NATS takes messages of {connection.max_payload} bytes at most, and lavant needs {MIN_PAYLOAD}; "
            "set max_payload: 8MB in the configuration of every nats-server"
        )
    if connection.server_version < _MINIMUM_SERVER:
        raise StoreUnusable(f"nats-server must be {'.'.join(map(str, _MINIMUM_SERVER))} or later; upgrade it")


async def _find(connection: Connection, name: str) -> dict[str, Any] | None:
    try:
        answer = await connection.api(f"STREAM.INFO.{name}", limit=_ANSWER_LIMIT)
    except Refused as refusal:
        if refusal.code == _NOT_FOUND:
            return None
        raise StoreUnusable(f"stream {name} cannot be read: {refusal}") from refusal
    config: dict[str, Any] = answer["config"]
    return config


async def _create(connection: Connection, wanted: dict[str, Any]) -> dict[str, Any]:
    try:
        answer = await connection.api(f"STREAM.CREATE.{wanted['name']}", limit=_ANSWER_LIMIT, **wanted)
    except Refused as refusal:
        return await _instead(connection, wanted, refusal)
    config: dict[str, Any] = answer["config"]
    return config


async def _instead(connection: Connection, wanted: dict[str, Any], refusal: Refused) -> dict[str, Any]:
    """Return the stream to use instead of one that could not be created as wanted, or raise."""
    name = wanted["name"]
    if refusal.code == _NOT_CLUSTERED:
        return await _create(connection, {**wanted, "num_replicas": 1})
    if refusal.code == _NAME_IN_USE and (found := await _find(connection, name)):
        return found
    if refusal.code == _NO_PEERS:
        raise ServersMissing(
            f"stream {name} cannot have {wanted['num_replicas']} replicas ({refusal}); "
            "start all servers of the cluster, or set LAVANT_NATS_REPLICAS=1"
        ) from refusal
    raise StoreUnusable(f"stream {name} cannot be created: {refusal}") from refusal


async def _identify(messages: Messages, location: Location, wanted: StoreIdentity) -> StoreIdentity:
    """Return the store's identity; the first replica to ask sets it."""
    found = await messages.last(location.meta_stream, location.identity)
    if found is None:
        with suppress(Conflict):
            await messages.publish(location.identity, _encode(wanted), expected=0)
        found = await messages.last(location.meta_stream, location.identity)
        if found is None:
            raise Unanswered("the store's identity is not there yet")
    return _decode(found.data)


async def read_identity(messages: Messages, location: Location) -> StoreIdentity:
    """Return the identity of a store as it is now. Raises Unanswered, or StoreUnusable if it has none."""
    return (await _read(messages, location))[0]


async def change_token_keys(
    connection: Connection, location: Location, change: Callable[[Sequence[TokenKey]], Sequence[TokenKey]]
) -> None:
    """Replace the keys that sign tokens; servers of the store read them again every few seconds."""
    messages = Messages(connection)
    while True:
        identity, sequence = await _read(messages, location)
        changed = identity._replace(keys=tuple(change(identity.keys)))
        with suppress(Conflict):
            await messages.publish(location.identity, _encode(changed), expected=sequence)
            return


async def _read(messages: Messages, location: Location) -> tuple[StoreIdentity, int]:
    found = await messages.last(location.meta_stream, location.identity)
    if found is None:
        raise StoreUnusable(f"there is no store {location}; create one with `lavant store init`")
    return _decode(found.data), found.sequence


def new_identity(*, own_key: bool = True) -> StoreIdentity:
    """Return the identity of a new store, with a key that signs tokens if it is to have an `own_key`."""
    return StoreIdentity(secrets.token_hex(8), (token_keys.first_key(),) if own_key else ())


def _encode(identity: StoreIdentity) -> bytes:
    stored = {"version": _VERSION, "epoch": identity.epoch, "keys": token_keys.encode(identity.keys)}
    return json.dumps(stored).encode()


def _decode(data: bytes) -> StoreIdentity:
    stored = json.loads(data)
    if stored["version"] != _VERSION:
        raise StoreUnusable(f"the store was made by a newer version of lavant (schema {stored['version']}); upgrade")
    keys = stored["keys"] if "keys" in stored else bytes.fromhex(stored["secret"])
    return StoreIdentity(stored["epoch"], token_keys.decode(keys))
