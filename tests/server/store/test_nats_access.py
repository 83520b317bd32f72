"""Credentials for NATS, against servers that demand them."""

import base64
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nkeys
import pytest

from lavant.server.store.jetstream import Access, Connection, Location, Unanswered
from support.certificates import Authority, encrypt
from support.nats import NatsServer, free_ports


@contextmanager
def demanding(folder: Path, configuration: str) -> Iterator[NatsServer]:
    """A server with more of a configuration, started."""
    server = NatsServer(folder / "nats", free_ports(1)[0], more=configuration)
    server.start()
    try:
        server.wait()
        yield server
    finally:
        server.kill()


async def logs_in(server: NatsServer, access: Access) -> bool:
    """Return whether the server lets a connection with this access in."""
    try:
        connection = await Connection.open(Location.parse(f"nats://{server.address}", access))
    except Unanswered:
        return False
    await connection.close()
    return True


async def test_nkey_logs_in(tmp_path: Path) -> None:
    seed = nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER)
    own, foreign = tmp_path / "own.nk", tmp_path / "foreign.nk"
    own.write_bytes(seed)
    foreign.write_bytes(nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER))
    public = nkeys.from_seed(bytearray(seed)).public_key.decode()
    with demanding(tmp_path, f"authorization {{ users: [{{nkey: {public}}}] }}") as server:
        assert await logs_in(server, Access(credentials=own))
        assert not await logs_in(server, Access(credentials=foreign))
        assert not await logs_in(server, Access())


class Identity:
    """A key of NATS that signs JWTs: https://github.com/nats-io/jwt."""

    def __init__(self, kind: int) -> None:
        self.seed: bytes = nkeys.encode_seed(os.urandom(32), kind)
        self._key = nkeys.from_seed(bytearray(self.seed))
        self.public: str = self._key.public_key.decode()

    def jwt(self, subject: "Identity", kind: str, **claims: Any) -> str:
        """Sign a JWT about an identity."""
        payload = {
            "jti": os.urandom(8).hex(),
            "iat": int(time.time()),
            "iss": self.public,
            "sub": subject.public,
            "name": kind,
            "nats": {"type": kind, "version": 2, **claims},
        }
        parts = [base64url(json.dumps(one).encode()) for one in ({"typ": "JWT", "alg": "ed25519-nkey"}, payload)]
        signed = ".".join(parts)
        return f"{signed}.{base64url(self._key.sign(signed.encode()))}"


def base64url(data: bytes) -> str:
    """Encode bytes as JWTs have them."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def credentials_file(path: Path, user: Identity, token: str) -> Path:
    """Write a JWT and the seed of its user as NATS's tools do."""
    path.write_text(
        f"-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{user.seed.decode()}\n------END USER NKEY SEED------\n"
    )
    return path


async def test_credentials_file_logs_in(tmp_path: Path) -> None:
    operator, system, account, stranger = map(
        Identity,
        (
            nkeys.PREFIX_BYTE_OPERATOR,
            nkeys.PREFIX_BYTE_ACCOUNT,
            nkeys.PREFIX_BYTE_ACCOUNT,
            nkeys.PREFIX_BYTE_ACCOUNT,
        ),
    )
    limits = {"subs": -1, "conn": -1, "data": -1, "payload": -1}
    with_storage = {**limits, "mem_storage": -1, "disk_storage": -1}
    accounts = {
        one.public: operator.jwt(one, "account", limits=with_storage if one is account else limits)
        for one in (system, account)
    }
    preloaded = "\n".join(f"{public}: {token}" for public, token in accounts.items())
    configuration = (
        f"operator: {operator.jwt(operator, 'operator', system_account=system.public)}\n"
        f"system_account: {system.public}\nresolver: MEMORY\nresolver_preload: {{\n{preloaded}\n}}"
    )
    user, other = Identity(nkeys.PREFIX_BYTE_USER), Identity(nkeys.PREFIX_BYTE_USER)
    permitted = account.jwt(user, "user", subs=-1, data=-1, payload=-1)
    own = credentials_file(tmp_path / "own.creds", user, permitted)
    forged = credentials_file(tmp_path / "forged.creds", other, stranger.jwt(other, "user", subs=-1))
    stolen = credentials_file(tmp_path / "stolen.creds", other, permitted)  # without the seed of its user
    with demanding(tmp_path, configuration) as server:
        assert await logs_in(server, Access(credentials=own))
        for bad in (forged, stolen):
            assert not await logs_in(server, Access(credentials=bad)), bad.name
        assert not await logs_in(server, Access())


async def test_client_certificate_logs_in(tmp_path: Path) -> None:
    authority, stranger = Authority(tmp_path / "own"), Authority(tmp_path / "foreign")
    pair = authority.server()
    tls = (
        f'tls {{ cert_file: "{pair.cert}", key_file: "{pair.key}", ca_file: "{authority.path}", verify_and_map: true }}'
    )
    with demanding(tmp_path, f'{tls}\nauthorization {{ users: [{{user: "lavant.test"}}] }}') as server:
        for issuer, name, expected in (
            (authority, "lavant.test", True),
            (authority, "other.test", False),
            (stranger, "lavant.test", False),
        ):
            client = issuer.issue("client", name)
            access = Access(ca=authority.path, cert=client.cert, key=client.key)
            assert await logs_in(server, access) is expected, name
        assert not await logs_in(server, Access(ca=authority.path))


def test_unusable_files_are_named(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair, other = authority.server(), authority.issue("other", "other.test")
    encrypt(other.key)
    text = tmp_path / "text"
    text.write_text("nothing")
    for access, expected in (
        (Access(ca=tmp_path / "none"), "nats_ca: .* cannot be used: No such file"),
        (Access(ca=text), "nats_ca: .* cannot be used"),
        (Access(ca=authority.path, cert=text, key=pair.key), "nats_cert: .* cannot be used"),
        (Access(ca=authority.path, cert=pair.cert, key=text), "nats_cert: .* cannot be used"),
        (Access(ca=authority.path, cert=other.cert, key=other.key), "nats_key: the key is encrypted"),
        (Access(credentials=tmp_path / "none"), "nats_credentials: .* cannot be read: No such file"),
        (Access(credentials=text), "nats_credentials: .* has neither a user JWT of NATS nor the seed of a user"),
    ):
        with pytest.raises(ValueError, match=expected):
            access.options()


def test_passwords_are_in_no_representation() -> None:
    location = Location.parse("nats://u:hunter2@127.0.0.1:4222", Access(user="lavant", password="hunter3"))
    assert "hunter" not in f"{location!r} {location} {location.access!r}"
