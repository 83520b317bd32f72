"""Access tokens: what they allow, for how long, and that nothing else is one."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from lavant.server.auth.access_tokens import AccessTokens, narrowed
from lavant.server.auth.principal import ANONYMOUS, Restriction, Scope
from lavant.server.auth.signing import BadSignatureError, Signer
from lavant.server.errors import ServiceError
from lavant.server.store.jetstream import Location
from lavant.v1 import access_service_pb2 as pb
from lavant.v1.event_service_pb2 import StreamEventsRequest
from lavant.v1.run_service_pb2 import CreateRunRequest, GetRunRequest, ListRunsRequest
from support.calls import create
from support.clock import ManualClock
from support.credentials import create_key
from support.server import Server, Stubs, connected, serving
from support.status import refused


@pytest.fixture
async def server(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Server]:
    async with serving(tmp_path, clock=clock, auth=["keys"], init_key=True, http="127.0.0.1:0") as server:
        yield server


async def create_token(stubs: Stubs, *scopes: str, seconds: int = 0, name: str = "", **restriction: Any) -> str:
    """Create an access token, by default for one run."""
    wanted = pb.Restriction(**(restriction or {"run_ids": ["run"]}))
    request = pb.CreateAccessTokenRequest(restriction=wanted, scopes=scopes, name=name)
    if seconds:
        request.lifetime.FromSeconds(seconds)
    return (await stubs.access.CreateAccessToken(request)).token


async def test_token_reads_its_run_and_says_who_it_is(server: Server, clock: ManualClock) -> None:
    await create(server.stubs)
    token = await create_token(server.stubs, name="user-1")
    assert token.startswith("lva_")
    async with connected(server.target, bearer=token) as stubs:
        assert (await stubs.runs.GetRun(GetRunRequest(run_id="run"))).run.run_id == "run"
        principal = await stubs.access.GetPrincipal(pb.GetPrincipalRequest())
        with refused("PERMISSION_DENIED"):
            await stubs.runs.CreateRun(CreateRunRequest())
        with refused("PERMISSION_DENIED"):
            await create_token(stubs)  # a token does not prolong itself
    assert (principal.tenant, principal.principal) == ("default", "token:key:admin/user-1")
    assert list(principal.scopes) == ["runs:read"]
    assert list(principal.restriction.run_ids) == ["run"]
    assert principal.expire_time.ToNanoseconds() == clock.time_ns() + 900 * 10**9


async def test_token_expires_and_never_after_its_creator(server: Server, clock: ManualClock) -> None:
    token = await create_token(server.stubs, seconds=60)
    key = pb.Key(name="brief", scopes=["runs:read"])
    key.expire_time.FromNanoseconds(clock.time_ns() + 30 * 10**9)
    secret = (await server.stubs.access.CreateKey(pb.CreateKeyRequest(key=key))).secret
    async with connected(server.target, bearer=secret) as brief:
        shorter = await create_token(brief, seconds=60)
    async with connected(server.target, bearer=token) as stubs, connected(server.target, bearer=shorter) as others:
        clock.advance(30)
        await stubs.access.GetPrincipal(pb.GetPrincipalRequest())
        with refused("UNAUTHENTICATED"):
            await others.access.GetPrincipal(pb.GetPrincipalRequest())
        clock.advance(30)
        with refused("UNAUTHENTICATED"):
            await stubs.access.GetPrincipal(pb.GetPrincipalRequest())


async def test_token_ends_with_the_key_that_created_it(server: Server) -> None:
    await create(server.stubs)
    key, secret = await create_key(server.stubs, "runs:read")
    async with connected(server.target, bearer=secret) as minter:
        token = await create_token(minter)
    async with connected(server.target, bearer=token) as stubs:
        stream = stubs.events.StreamEvents(StreamEventsRequest(run_id="run", consumer_id="ui"))
        await anext(aiter(stream))
        await server.stubs.access.RevokeKey(pb.RevokeKeyRequest(key_id=key.key_id))
        with refused("UNAUTHENTICATED"):
            async for _ in stream:
                pass
        with refused("UNAUTHENTICATED"):
            await stubs.access.GetPrincipal(pb.GetPrincipalRequest())


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, "INVALID_FIELD"),
        ({"restriction": pb.Restriction()}, "INVALID_FIELD"),
        ({"scopes": ["runs:publish"]}, "INVALID_FIELD"),
        ({"scopes": ["keys:admin"]}, "INVALID_FIELD"),
        ({"lifetime": {"seconds": 3601}}, "INVALID_FIELD"),
        ({"lifetime": {"seconds": -1}}, "INVALID_FIELD"),
        ({"name": "a b"}, "INVALID_FIELD"),
        ({"restriction": pb.Restriction(run_ids=[f"{n:0128}" for n in range(100)])}, "INVALID_FIELD"),
        ({"scopes": ["scores:read"]}, "PERMISSION_DENIED"),
    ],
)
async def test_token_beyond_what_is_allowed_is_refused(server: Server, fields: dict[str, Any], reason: str) -> None:
    _, secret = await create_key(server.stubs, "runs:read")
    if fields:
        fields = {"restriction": pb.Restriction(run_ids=["run"]), **fields}
    async with connected(server.target, bearer=secret) as stubs:
        with refused(reason):
            await stubs.access.CreateAccessToken(pb.CreateAccessTokenRequest(**fields))


async def test_changed_tokens_and_those_of_other_uses_are_unauthenticated(server: Server, tmp_path: Path) -> None:
    await create(server.stubs)
    token = await create_token(server.stubs)
    stream = server.stubs.events.StreamEvents(StreamEventsRequest(run_id="run", consumer_id="ui"))
    resume_token = (await anext(aiter(stream))).resume_token
    page_token = (await server.stubs.runs.ListRuns(ListRunsRequest(page_size=1))).next_page_token
    flipped = [f"{token[:n]}{'A' if token[n] != 'A' else 'B'}{token[n + 1 :]}" for n in range(4, len(token), 7)]
    for bad in [*flipped, token[:-1], f"{token}A", "lva_", f"lva_{resume_token}", f"lva_{page_token}", token[4:]]:
        async with connected(server.target, bearer=bad) as stubs:
            with refused("UNAUTHENTICATED"):
                await stubs.access.GetPrincipal(pb.GetPrincipalRequest())
    with refused("RESUME_TOKEN_INVALID"):
        again = StreamEventsRequest(run_id="run", consumer_id="other", resume_token=token[4:])
        await anext(aiter(server.stubs.events.StreamEvents(again)))


async def test_token_is_verified_by_another_server_with_the_same_keys(tmp_path: Path, clock: ManualClock) -> None:
    old, new = "11" * 16, "22" * 16
    async with serving(tmp_path, clock=clock, auth=["keys"], init_key=True, token_keys={"a": old}) as server:
        token = await create_token(server.stubs)
    async with (
        serving(tmp_path, clock=clock, auth=["keys"], token_keys={"b": new, "a": old}) as server,
        connected(server.target, bearer=token) as stubs,
    ):
        await stubs.access.GetPrincipal(pb.GetPrincipalRequest())
    async with (
        serving(tmp_path, clock=clock, auth=["keys"], token_keys={"b": new}) as server,
        connected(server.target, bearer=token) as stubs,
    ):
        with refused("UNAUTHENTICATED"):
            await stubs.access.GetPrincipal(pb.GetPrincipalRequest())


async def test_token_of_one_replica_reads_from_another(location: Location, tmp_path: Path, clock: ManualClock) -> None:
    settings: dict[str, Any] = {"store": str(location), "clock": clock, "auth": ["keys"]}
    async with (
        serving(tmp_path, init_key=True, **settings) as here,
        serving(tmp_path, **settings) as there,
    ):
        await create(here.stubs)
        token = await create_token(here.stubs)
        async with connected(there.target, bearer=token) as stubs:
            assert (await stubs.runs.GetRun(GetRunRequest(run_id="run"))).run.run_id == "run"


def test_keys_of_a_purpose_verify_no_other_texts() -> None:
    signer = Signer({"k": b"k" * 32})
    other = signer.for_purpose("access", 2_048)
    for one, two in ((signer, other), (other, signer), (other, signer.for_purpose("page", 2_048))):
        with pytest.raises(BadSignatureError):
            two.verify(one.sign(b"payload").decode())
    assert other.verify(signer.for_purpose("access", 2_048).sign(b"payload").decode()) == b"payload"


async def test_url_takes_an_access_token_for_streams_only(server: Server, capfd: pytest.CaptureFixture[str]) -> None:
    await create(server.stubs)
    token = await create_token(server.stubs)
    _, secret = await create_key(server.stubs, "runs:read")
    bearer = {"authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(base_url=f"http://{server.app.http_address}/api/v1", timeout=20) as web:
        for path in ("/runs/run/stream", "/evaluations/run/stream", "/watch"):
            assert (await web.head(path, params={"access_token": token})).status_code in (200, 403, 404)
        async with web.stream("GET", "/runs/run/stream", params={"access_token": token}) as response:
            assert response.status_code == 200
            assert response.headers["referrer-policy"] == "no-referrer"
            assert response.headers["cache-control"] == "no-store"
        for path, params, headers in (
            ("/runs/run", {"access_token": token}, {}),
            ("/principal", {"access_token": token}, {}),
            ("/runs/run/stream", {"access_token": secret}, {}),
            ("/runs/run/stream", {"access_token": "a.b.c"}, {}),
            ("/runs/run/stream", {"access_token": ""}, {}),
            ("/runs/run/stream", {"access_token": [token, token]}, {}),
            ("/runs/run/stream", {"access_token": token}, bearer),
            ("/runs/run/stream", {}, {}),
        ):
            refusal = await web.get(path, params=params, headers=headers)
            assert (refusal.status_code, refusal.json()["error"]["reason"]) == (401, "UNAUTHENTICATED"), (path, params)
            assert token not in refusal.text
        assert (await web.get("/principal", headers=bearer)).json()["principal"].startswith("token:key:admin/")
    out, err = capfd.readouterr()
    assert token not in out + err
    assert secret not in out + err


OWN = Restriction(run_ids=("a", "b"), names=("chat-*", "exact"), labels={"team": "x"}, conversation_id="c")


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (Restriction(), OWN),
        (Restriction(run_ids=("a",)),
         Restriction(run_ids=("a",), names=OWN.names, labels=OWN.labels, conversation_id="c")),
        (Restriction(names=("chat-1", "chat-x*", "exact"), labels={"user": "1"}),
         Restriction(run_ids=OWN.run_ids, names=("chat-1", "chat-x*", "exact"), labels={"team": "x", "user": "1"},
                     conversation_id="c")),
        (Restriction(run_ids=("a", "z")), None),
        (Restriction(names=("chat*",)), None),
        (Restriction(names=("*",)), None),
        (Restriction(names=("exact*",)), None),
        (Restriction(labels={"team": "y"}), None),
        (Restriction(conversation_id="d"), None),
    ],
)  # fmt: skip
def test_token_of_a_restricted_credential_is_no_wider(wanted: Restriction, found: Restriction | None) -> None:
    assert narrowed(None, wanted) == wanted
    if found is not None:
        assert narrowed(OWN, wanted) == found
    else:
        with pytest.raises(ServiceError, match="not for"):
            narrowed(OWN, wanted)


def test_token_is_refused_once_its_key_is_gone(clock: ManualClock) -> None:
    signer = Signer({"old": b"o" * 32})
    tokens = AccessTokens(signer, "epoch", clock, lambda _: False)
    text, _ = tokens.issue(
        ANONYMOUS, name="", scopes=frozenset({Scope.RUNS_READ}), wanted=Restriction(run_ids=("run",)), seconds=60
    )
    signer.replace_keys({"new": b"n" * 32, "old": b"o" * 32})
    assert tokens.authenticate(text).tenant == "default"
    signer.replace_keys({"new": b"n" * 32})
    with pytest.raises(ServiceError, match="not valid"):
        tokens.authenticate(text)
