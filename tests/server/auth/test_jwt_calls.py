"""Calls with JWTs over gRPC and HTTP: who they are served as, and which are refused."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from grpc import aio

from lavant.v1.access_service_pb2 import CreateAccessTokenRequest, GetPrincipalRequest, Restriction
from lavant.v1.event_service_pb2 import StreamEventsRequest
from lavant.v1.run_service_pb2 import ListRunsRequest
from support.calls import create
from support.issuer import AUDIENCE, ISSUER, Issuer
from support.server import Server, Stubs, connected, serving
from support.status import Refusal, refused


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    issuer = Issuer(now=4_000_000_000, algorithm="RS256")
    yield issuer
    issuer.close()


@pytest.fixture
async def server(tmp_path: Path, issuer: Issuer) -> AsyncIterator[Server]:
    """A server that accepts JWTs and API keys, with a key set in a file; its stubs call with the first key."""
    keys = tmp_path / "keys.json"
    keys.write_bytes(issuer.key_set)
    settings: dict[str, Any] = {"jwt_issuer": ISSUER, "jwt_audience": AUDIENCE, "jwt_keys": str(keys)}
    async with serving(
        tmp_path, auth=["jwt", "keys"], init_key=True, http="127.0.0.1:0", jwt_tenants={"org-1": "acme"}, **settings
    ) as server:
        yield server


def bad_tokens(issuer: Issuer) -> dict[str, tuple[str, str]]:
    """Tokens by what is wrong with them, with the reason of the refusal."""
    forger = Issuer(now=issuer.now, algorithm="RS256")
    forger.close()
    pem = b"-----BEGIN PUBLIC KEY-----\n"
    return {
        "alg none": (jwt.encode(issuer.claims(tenant="org-1"), "", "none"), "UNAUTHENTICATED"),
        "symmetric": (jwt.encode(issuer.claims(tenant="org-1"), pem * 4, "HS256"), "UNAUTHENTICATED"),
        "wrong key": (forger.token(tenant="org-1"), "UNAUTHENTICATED"),
        "unknown key": (forger.token(tenant="org-1", headers={"kid": "x"}), "UNAUTHENTICATED UNAVAILABLE"),
        "expired": (issuer.token(tenant="org-1", exp=1_600_000_000), "UNAUTHENTICATED"),
        "wrong audience": (issuer.token(tenant="org-1", aud="other"), "UNAUTHENTICATED"),
        "wrong issuer": (issuer.token(tenant="org-1", iss="other"), "UNAUTHENTICATED"),
        "unknown tenant": (issuer.token(tenant="acme"), "PERMISSION_DENIED"),
        "no scope": (issuer.token(tenant="org-1", scope="openid"), "PERMISSION_DENIED"),
        "narrow scope": (issuer.token(tenant="org-1", scope="rules:read"), "PERMISSION_DENIED"),
    }


async def test_jwt_is_served_as_its_tenant(server: Server, issuer: Issuer) -> None:
    token = issuer.token(tenant="org-1", scope="runs:read runs:publish")
    async with connected(server.target, bearer=token) as stubs:
        await create(stubs, "ours")
        principal = await stubs.access.GetPrincipal(GetPrincipalRequest())
    assert (principal.tenant, principal.principal) == ("acme", "jwt:ada")
    assert not (await server.stubs.runs.ListRuns(ListRunsRequest())).runs
    async with httpx.AsyncClient(base_url=f"http://{server.app.http_address}/api/v1") as web:
        listed = await web.get("/runs", headers={"authorization": f"Bearer {token}"})
    assert [run["run_id"] for run in listed.json()["runs"]] == ["ours"]


async def test_bad_jwts_are_refused_over_grpc_and_http(
    server: Server, issuer: Issuer, capfd: pytest.CaptureFixture[str]
) -> None:
    async with httpx.AsyncClient(base_url=f"http://{server.app.http_address}/api/v1") as web:
        for what, (token, reasons) in bad_tokens(issuer).items():
            answer = await web.get("/runs", headers={"authorization": f"Bearer {token}"})
            assert answer.json()["error"]["reason"] in reasons.split(), what
            assert (answer.status_code == 401) == (answer.json()["error"]["reason"] == "UNAUTHENTICATED")
            refusal = Refusal()
            async with connected(server.target, bearer=token) as stubs:
                with pytest.raises(aio.AioRpcError) as caught:
                    await stubs.runs.ListRuns(ListRunsRequest())
            refusal.read(caught.value)
            assert refusal.reason in reasons.split(), what
        oversized = issuer.token(tenant="org-1", padding="x" * 9_000)
        assert (await web.get("/runs", headers={"authorization": f"Bearer {oversized}"})).status_code == 401
    out, err = capfd.readouterr()
    for what, (token, _) in bad_tokens(issuer).items():
        assert token.split(".")[1] not in out + err, what


async def test_server_without_jwts_refuses_them(tmp_path: Path, issuer: Issuer) -> None:
    async with (
        serving(tmp_path, auth=["keys"], init_key=True) as server,
        connected(server.target, bearer=issuer.token()) as stubs,
    ):
        with refused("UNAUTHENTICATED"):
            await stubs.runs.ListRuns(ListRunsRequest())


async def test_limits_of_jwts_bind_their_calls_and_access_tokens(tmp_path: Path, issuer: Issuer) -> None:
    keys = tmp_path / "keys.json"
    keys.write_bytes(issuer.key_set)
    settings: dict[str, Any] = {"jwt_issuer": ISSUER, "jwt_audience": AUDIENCE, "jwt_keys": str(keys)}
    settings |= {"jwt_limits_claim": "plan", "jwt_limits": {"free": {"streams": 1}}}
    async with serving(tmp_path, auth=["jwt"], http="127.0.0.1:0", **settings) as server, AsyncExitStack() as stack:

        async def calling(bearer: str) -> Stubs:
            return await stack.enter_async_context(connected(server.target, bearer=bearer))

        scopes = "runs:read runs:publish"
        first, second = [await calling(issuer.token(plan="free", scope=scopes, jti=name)) for name in "ab"]
        await create(first)
        stream = first.events.StreamEvents(StreamEventsRequest(run_id="run", consumer_id="a"), timeout=30)
        await stream.read()
        request = CreateAccessTokenRequest(restriction=Restriction(run_ids=["run"]))
        by_token = await calling((await second.access.CreateAccessToken(request)).token)
        for stubs in (second, by_token):
            with refused("QUOTA_EXCEEDED") as refusal:
                await stubs.events.StreamEvents(StreamEventsRequest(run_id="run", consumer_id="b"), timeout=30).read()
            assert refusal.metadata == {"quota": "streams", "limit": "1"}
        with refused("PERMISSION_DENIED"):
            await create(await calling(issuer.token(plan="other", scope=scopes)))
