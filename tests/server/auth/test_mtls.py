"""Principals by client certificates, over gRPC and HTTP."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from lavant.client import TLS, AsyncClient, PermissionDenied, RunNotFound, Unauthenticated
from lavant.server.auth.mtls import CertificatePrincipals
from lavant.server.errors import StartError
from support.certificates import Authority, Pair, tls_settings
from support.server import serving

TEAM = "spiffe://example.org/team/weather"
TABLE = f"""
["{TEAM}"]
tenant = "acme"
scopes = ["runs:publish", "runs:read"]

["reader.example.org"]
tenant = "acme"
scopes = ["runs:read"]

["other.example.org"]
tenant = "other"
scopes = ["runs:publish", "runs:read", "runs:admin"]
"""


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """The CA of this test."""
    return Authority(tmp_path / "tls")


@pytest.fixture
def settings(tmp_path: Path, authority: Authority) -> dict[str, Any]:
    """Settings of a server whose callers are known by their certificates."""
    table = tmp_path / "principals.toml"
    table.write_text(TABLE)
    return {
        **tls_settings(authority.server(), authority),
        "auth": ["mtls"],
        "mtls_principals": table,
        "http": "127.0.0.1:0",
    }


def client_of(target: str, authority: Authority, pair: Pair, **more: Any) -> AsyncClient:
    """A client with a certificate."""
    return AsyncClient(target, tls=TLS(ca=authority.path, cert=pair.cert, key=pair.key), **more)


async def test_a_certificate_names_its_principal(
    tmp_path: Path, authority: Authority, settings: dict[str, Any]
) -> None:
    team = authority.issue_for_uri("team", TEAM)
    reader, other = (authority.issue(name, f"{name}.example.org") for name in ("reader", "other"))
    async with serving(tmp_path, **settings) as server:
        address = server.app.http_address
        async with client_of(server.target, authority, team) as client:
            async with client.runs.start("weather", on_error="raise") as run:
                await run.text("It is cold.")
            assert await client.runs.stream(run.id).text() == "It is cold."
            with pytest.raises(PermissionDenied) as denied:
                await client.runs.delete(run.id)
            assert denied.value.scope == "runs:admin"
        async with client_of(server.target, authority, reader) as client:
            assert (await client.runs.get(run.id)).id == run.id
            with pytest.raises(PermissionDenied) as denied:
                await client.runs.create("weather")
            assert denied.value.scope == "runs:publish"
        async with httpx.AsyncClient(verify=authority.context(reader)) as browser:
            assert (await browser.get(f"https://{address}/api/v1/runs/{run.id}")).status_code == 200
        async with client_of(server.target, authority, other) as client:
            with pytest.raises(RunNotFound):
                await client.runs.get(run.id)
        async with httpx.AsyncClient(verify=authority.context(other)) as browser:
            assert (await browser.get(f"https://{address}/api/v1/runs/{run.id}")).status_code == 404


async def test_a_certificate_of_nobody_is_refused(
    tmp_path: Path, authority: Authority, settings: dict[str, Any]
) -> None:
    stranger = authority.issue("stranger", "stranger.example.org")
    async with serving(tmp_path, reflection=True, **settings) as server:
        async with client_of(server.target, authority, stranger) as client:
            with pytest.raises(Unauthenticated, match=r"stranger.example.org, is of no principal"):
                await client.runs.get("run")
            with pytest.raises(Unauthenticated):
                await client.runs.stream("run").text()
        async with client_of(server.target, authority, stranger, api_key="lvk_a_b") as client:
            with pytest.raises(Unauthenticated):  # never by trial: what is sent counts
                await client.runs.get("run")
        async with httpx.AsyncClient(verify=authority.context(stranger)) as browser:
            address = server.app.http_address
            assert (await browser.get(f"https://{address}/api/v1/runs")).status_code == 401


BAD = {
    "[a]\ntenant = 'acme'": "a.scopes: Field required",
    "[a]\ntenant = 'a/b'\nscopes = []": "a.tenant: Value error, must be 1 to 64",
    "[a]\ntenant = 'lavant'\nscopes = []": "a.tenant",
    "[a]\ntenant = 'acme'\nscopes = ['runs:all']": "a.scopes.0: Input should be",
    "[a]\ntenant = 'acme'\nscopes = []\nextra = 1": "a.extra",
    "a = 1": "a: Input should be",
    "a =": "cannot be read as TOML",
}


@pytest.mark.parametrize(("text", "expected"), BAD.items())
def test_a_bad_table_is_explained_at_start(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "principals.toml"
    path.write_text(text)
    with pytest.raises(StartError) as refused:
        CertificatePrincipals.read(path)
    assert expected in str(refused.value)
    with pytest.raises(StartError, match="cannot be read: No such file"):
        CertificatePrincipals.read(tmp_path / "missing.toml")
