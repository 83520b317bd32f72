"""JWTs of a real issuer: what is accepted as whom, and what is refused."""

import base64
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import jwt
import pytest
from structlog.testing import capture_logs

from lavant.server.auth.jwt import Claims, JWTAuthentication, is_jwt
from lavant.server.auth.key_set import KeySet
from lavant.server.auth.principal import Limits, Principal, Scope
from lavant.server.auth.principal_cache import PrincipalCache
from lavant.server.auth.quotas import Quota, Quotas
from lavant.server.errors import ServiceError
from lavant.v1.error_pb2 import ErrorReason
from support.clock import ManualClock
from support.issuer import AUDIENCE, ISSUER, Issuer, new_key, public_jwk

CLAIMS = Claims(issuer=ISSUER, audience=AUDIENCE)
UNAUTHENTICATED = ErrorReason.ERROR_REASON_UNAUTHENTICATED
PERMISSION_DENIED = ErrorReason.ERROR_REASON_PERMISSION_DENIED


@pytest.fixture
def issuer(clock: ManualClock) -> Iterator[Issuer]:
    issuer = Issuer(now=clock.time_ns() // 1_000_000_000)
    yield issuer
    issuer.close()


def outcome(authenticate: JWTAuthentication, token: str) -> "Principal | ErrorReason.ValueType":
    """Whom a token is accepted as, or the reason for which it is refused."""
    try:
        return authenticate(token)
    except ServiceError as error:
        return error.reason


def unsigned(header: dict[str, Any], claims: dict[str, Any], signature: str = "") -> str:
    parts = (json.dumps(part).encode() for part in (header, claims))
    return ".".join([*(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts), signature])


async def test_jwt_of_the_issuer_names_tenant_scopes_and_expiry(issuer: Issuer, clock: ManualClock) -> None:
    async with KeySet(issuer.url, "ES256", clock) as keys:
        principal = JWTAuthentication(keys, "ES256", CLAIMS, clock)(
            issuer.token(scope="openid runs:read runs:publish", jti="token-1")
        )
    assert principal == Principal(
        tenant="acme",
        id="jwt:ada",
        scopes=frozenset({Scope.RUNS_READ, Scope.RUNS_PUBLISH}),
        credential_id="jwt:token-1",
        expires_ns=(issuer.now + 600) * 1_000_000_000,
    )


async def test_limits_of_a_claim_count_for_all_tokens_of_a_subject(issuer: Issuer, clock: ManualClock) -> None:
    claims = replace(CLAIMS, limits={"free": Limits(streams=1), "paid": Limits()})
    async with KeySet(issuer.url, "ES256", clock) as keys:
        authenticate = JWTAuthentication(keys, "ES256", claims, clock)
        quotas = Quotas(clock)
        one, two, other = (
            authenticate(issuer.token(limits="free", sub=subject, jti=token_id))
            for subject, token_id in (("ada", "1"), ("ada", "2"), ("bob", "3"))
        )
        with quotas.using(Quota.STREAMS, one):
            with pytest.raises(ServiceError, match="principal jwt:ada has 1 streams"), quotas.using(Quota.STREAMS, two):
                pass
            paid = authenticate(issuer.token(limits="paid"))
            with quotas.using(Quota.STREAMS, other), quotas.using(Quota.STREAMS, paid):
                pass
        with quotas.using(Quota.STREAMS, two):
            pass
        for unknown in ("none", "", ["free"], None):
            assert outcome(authenticate, issuer.token(limits=unknown)) == PERMISSION_DENIED


@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "ES256", "ES384", "EdDSA"])
async def test_every_algorithm_verifies_its_own_tokens_only(clock: ManualClock, algorithm: str) -> None:
    issuer = Issuer(now=clock.time_ns() // 1_000_000_000, algorithm=algorithm)
    other = Issuer(now=issuer.now, algorithm="RS256" if algorithm != "RS256" else "PS256")
    try:
        async with KeySet(issuer.url, algorithm, clock) as keys:
            authenticate = JWTAuthentication(keys, algorithm, CLAIMS, clock)
            assert isinstance(outcome(authenticate, issuer.token()), Principal)
            assert outcome(authenticate, other.token()) == UNAUTHENTICATED
    finally:
        issuer.close()
        other.close()


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": None}, {"iss": "https://evil.example.org/"}, {"iss": [ISSUER]}, {"iss": ISSUER[:-1]},
        {"aud": None}, {"aud": "other"}, {"aud": ["a", "b"]}, {"aud": {"lavant": 1}}, {"aud": ""},
        {"exp": None}, {"exp": "2000000000"}, {"exp": 2e9}, {"exp": True}, {"exp": -1}, {"exp": 1 << 60}, {"exp": [1]},
        {"exp": 1_600_000_000}, {"exp": 1_700_000_000},
        {"nbf": 1_700_000_031}, {"nbf": "1"}, {"iat": 1_700_000_031}, {"iat": None, "nbf": True},
        {"sub": None}, {"sub": ""}, {"sub": 7}, {"sub": "a\nb"}, {"sub": "a" * 201},
    ],
)  # fmt: skip
async def test_bad_claims_are_unauthenticated(issuer: Issuer, clock: ManualClock, changes: dict[str, Any]) -> None:
    async with KeySet(issuer.url, "ES256", clock) as keys:
        assert outcome(JWTAuthentication(keys, "ES256", CLAIMS, clock), issuer.token(**changes)) == UNAUTHENTICATED


async def test_clocks_may_differ_by_thirty_seconds(issuer: Issuer, clock: ManualClock) -> None:
    token = issuer.token(nbf=issuer.now + 30, iat=issuer.now + 29.5, aud=["other", AUDIENCE])
    async with KeySet(issuer.url, "ES256", clock) as keys:
        assert isinstance(outcome(JWTAuthentication(keys, "ES256", CLAIMS, clock), token), Principal)


async def test_bad_headers_and_signatures_are_unauthenticated(issuer: Issuer, clock: ManualClock) -> None:
    good = issuer.token()
    head, payload, signature = good.split(".")
    forger = Issuer(now=issuer.now)
    stolen = public_jwk(forger.keys["first"], "ES256", kid="first")
    confused = jwt.encode(issuer.claims(), json.dumps(issuer.published[0]) * 2, "HS256", {"kid": "first"})
    flipped = signature[:-4] + ("AAAA" if signature[-4:] != "AAAA" else "BBBB")
    bad = [
        unsigned({"alg": "none", "kid": "first"}, issuer.claims()),
        unsigned({"alg": "none", "kid": "first"}, issuer.claims(), signature),
        unsigned({"alg": "None"}, issuer.claims(), signature),
        confused,
        forger.token(),
        forger.token(headers={"jwk": stolen}),
        forger.token(headers={"jku": forger.url, "x5u": forger.url, "kid": "other"}),
        issuer.token(headers={"crit": ["exp"]}),
        issuer.token(headers={"kid": None}) + "A",
        issuer.token(headers={"kid": "unheard"}),
        f"{head}.{payload}.{flipped}",
        f"{head}.{payload}.",
        f"{payload}.{payload}.{signature}",
        f"{head}.{issuer.token(sub='eve').split('.')[1]}.{signature}",
        f"{head}.{payload}",
        f"{good}.{signature}",
        "a" * 9_000 + good,
    ]
    async with KeySet(issuer.url, "ES256", clock) as keys:
        authenticate = JWTAuthentication(keys, "ES256", CLAIMS, clock)
        assert isinstance(outcome(authenticate, good), Principal)
        refused = [is_jwt(token) and outcome(authenticate, token) for token in bad]
        # The unknown key was looked for at the issuer meanwhile: a call does not wait for that.
        unavailable = ErrorReason.ERROR_REASON_UNAVAILABLE
        assert {*refused} <= {UNAUTHENTICATED, unavailable, False}, refused
        assert refused.count(unavailable) <= 2
    forger.close()


async def test_a_named_key_of_a_header_is_never_fetched(issuer: Issuer, clock: ManualClock) -> None:
    forger = Issuer(now=issuer.now)
    async with KeySet(issuer.url, "ES256", clock) as keys:
        token = forger.token(headers={"jku": forger.url, "x5u": forger.url})
        assert outcome(JWTAuthentication(keys, "ES256", CLAIMS, clock), token) == UNAUTHENTICATED
    assert forger.fetches == 0
    forger.close()


@pytest.mark.parametrize(
    "payload",
    [
        b'{"iss":"%s","aud":"lavant","sub":"ada","exp":1,"exp":1700000600,"tenant":"acme","scope":"runs:read"}',
        b'{"iss":"%s","aud":"lavant","sub":"ada","exp":1700000600,"tenant":"acme","scope":"runs:read","a":{"b":1,"b":2}}',
        b"[1]",
        b"7",
        b"not json",
        b"\xff\xfe",
        b"[" * 5_000,
        b'{"exp":' + b"9" * 5_000 + b"}",
    ],
)
async def test_payloads_that_parsers_disagree_on_are_unauthenticated(
    issuer: Issuer, clock: ManualClock, payload: bytes
) -> None:
    token = issuer.sign(payload.replace(b"%s", ISSUER.encode()))
    async with KeySet(issuer.url, "ES256", clock) as keys:
        assert outcome(JWTAuthentication(keys, "ES256", CLAIMS, clock), token) == UNAUTHENTICATED


async def test_claims_are_mapped_to_tenants_and_scopes(issuer: Issuer, clock: ManualClock) -> None:
    claims = Claims(
        issuer=ISSUER,
        audience=AUDIENCE,
        tenant_claim="https://example.org/org",
        scopes_claim="roles",
        tenants={"Acme GmbH": "acme"},
        scopes={"viewer": (Scope.RUNS_READ, Scope.SCORES_READ), "agent": (Scope.RUNS_PUBLISH,)},
    )
    async with KeySet(issuer.url, "ES256", clock) as keys:
        authenticate = JWTAuthentication(keys, "ES256", claims, clock)
        claimed: dict[str, Any] = {"https://example.org/org": "Acme GmbH", "roles": ["viewer", "agent", "cook", 7]}
        token = issuer.token(**claimed)
        principal = authenticate(token)
        assert principal.tenant == "acme"
        assert principal.scopes == {Scope.RUNS_READ, Scope.SCORES_READ, Scope.RUNS_PUBLISH}
        bare = issuer.token(**{**claimed, "https://example.org/org": "acme"})
        assert outcome(authenticate, bare) == PERMISSION_DENIED


@pytest.mark.parametrize(
    "changes",
    [
        {"tenant": None}, {"tenant": "lavant"}, {"tenant": "acme/rules"}, {"tenant": "ACME"}, {"tenant": ["acme"]},
        {"tenant": ""}, {"tenant": {"a": "b"}},
        {"scope": None}, {"scope": ""}, {"scope": "openid profile"}, {"scope": 1}, {"scope": {"runs:read": True}},
        {"scope": ["RUNS:READ"]},
    ],
)  # fmt: skip
async def test_unknown_tenants_and_scopes_are_denied_and_logged(
    issuer: Issuer, clock: ManualClock, changes: dict[str, Any]
) -> None:
    async with KeySet(issuer.url, "ES256", clock) as keys:
        authenticate = JWTAuthentication(keys, "ES256", CLAIMS, clock)
        token = issuer.token(**changes)
        with capture_logs() as logs:
            assert [outcome(authenticate, token) for _ in range(3)] == [PERMISSION_DENIED] * 3
    ((name, _),) = changes.items()
    (line,) = [log for log in logs if log["event"] == "jwt_refused"]  # once a minute, whoever asks how often
    assert f"the claim '{name}' names no known" in line["why"]
    assert token not in str(logs)
    assert token.split(".")[2] not in str(logs)


async def test_remembered_token_is_refused_once_it_has_expired(issuer: Issuer, clock: ManualClock) -> None:
    token = issuer.token(exp=issuer.now + 60)
    async with KeySet(issuer.url, "ES256", clock) as keys:
        authenticate = JWTAuthentication(keys, "ES256", CLAIMS, clock)
        first = authenticate(token)
        clock.jump(59.9)
        assert authenticate(token) is first
        clock.jump(0.1)
        assert outcome(authenticate, token) == UNAUTHENTICATED
        assert outcome(authenticate, token) == UNAUTHENTICATED


async def test_new_key_is_read_once_a_token_names_it(issuer: Issuer, clock: ManualClock) -> None:
    async with KeySet(issuer.url, "ES256", clock) as keys:
        authenticate = JWTAuthentication(keys, "ES256", CLAIMS, clock)
        old = issuer.token()
        assert isinstance(outcome(authenticate, old), Principal)
        issuer.publish("second")
        new = issuer.token(key="second")
        assert outcome(authenticate, new) == ErrorReason.ERROR_REASON_UNAVAILABLE
        await read(keys)
        assert isinstance(outcome(authenticate, new), Principal)
        assert outcome(authenticate, old) == UNAUTHENTICATED  # a key that is no longer published, also remembered ones
        assert issuer.fetches == 2

        unknown = issuer.token(headers={"kid": "third"})
        assert [outcome(authenticate, unknown) for _ in range(100)] == [UNAUTHENTICATED] * 100
        clock.advance(59)
        assert outcome(authenticate, unknown) == UNAUTHENTICATED
        assert issuer.fetches == 2
        clock.advance(1)
        outcome(authenticate, unknown)
        await read(keys)
        assert issuer.fetches == 3


async def test_keys_of_a_url_are_read_every_five_minutes(issuer: Issuer, clock: ManualClock) -> None:
    async with KeySet(issuer.url, "ES256", clock) as keys:
        authenticate = JWTAuthentication(keys, "ES256", CLAIMS, clock)
        issuer.publish("second")
        clock.advance(299)
        await read(keys)
        assert issuer.fetches == 1
        clock.advance(6)
        await read(keys)
        assert isinstance(outcome(authenticate, issuer.token(key="second")), Principal)


@pytest.mark.parametrize(
    ("status", "body"),
    [(500, b""), (302, b""), (200, b"<html>"), (200, b'{"keys":[]}'), (200, b" " * 300_000), (200, b"[" * 100_000)],
)
async def test_last_good_keys_stay_when_a_read_fails(
    issuer: Issuer, clock: ManualClock, status: int, body: bytes
) -> None:
    async with KeySet(issuer.url, "ES256", clock) as keys:
        authenticate = JWTAuthentication(keys, "ES256", CLAIMS, clock)
        issuer.status, issuer.body = status, body
        with capture_logs() as logs:
            clock.advance(305)
            await read(keys)
        assert [log["event"] for log in logs] == ["jwt_keys_not_read"]
        assert isinstance(outcome(authenticate, issuer.token()), Principal)
        issuer.publish("second")
        issuer.status, issuer.body = 200, None
        clock.advance(15)
        await read(keys)
        assert isinstance(outcome(authenticate, issuer.token(key="second")), Principal)


async def test_tokens_are_unavailable_until_the_issuer_answers(issuer: Issuer, clock: ManualClock) -> None:
    issuer.status = 503
    async with KeySet(issuer.url, "ES256", clock) as keys:
        authenticate = JWTAuthentication(keys, "ES256", CLAIMS, clock)
        assert outcome(authenticate, issuer.token()) == ErrorReason.ERROR_REASON_UNAVAILABLE
        issuer.status = 200
        clock.advance(60)
        await read(keys)
        assert isinstance(outcome(authenticate, issuer.token()), Principal)


async def test_keys_of_other_uses_are_not_tried(issuer: Issuer, clock: ManualClock) -> None:
    key, short = issuer.keys["first"], new_key("RS256", bits=1_024)
    good = public_jwk(key, "ES256", kid="good")
    issuer.published = [
        {**good, "kid": "encrypts", "use": "enc"},
        {**good, "kid": "other", "alg": "ES384"},
        {**good, "kid": "signs", "use": None, "key_ops": ["sign"]},
        {**good, "kid": "private", "d": "AAAA"},
        {**good, "kid": "broken", "x": "AAAA"},
        {**good, "kid": 7},
        {"kty": "oct", "k": "AAAA", "kid": "shared"},
        public_jwk(short, "RS256", kid="short"),
        public_jwk(new_key("ES384"), "ES384", kid="curve", alg="ES256"),
        good,
    ]
    async with KeySet(issuer.url, "ES256", clock) as keys:
        assert [one["kid"] for one in issuer.published if keys.find(one["kid"])] == ["good"]


async def read(keys: KeySet) -> None:
    """Wait until a read that is under way has ended."""
    if keys._task is not None:
        await keys._task


def test_principal_cache_keeps_the_latest_credentials(clock: ManualClock) -> None:
    cache, verified = PrincipalCache(clock, limit=2), []

    def verify(text: str, _: bytes) -> Principal:
        verified.append(text)
        return Principal(tenant="acme", id=text)

    for text in ("a", "b", "a", "c", "b", "a", "c"):
        assert cache.get(text, verify).id == text
    assert verified == ["a", "b", "c", "a"]
