"""Who may read which path: each of them with every kind of credential. New paths are covered, or fail here."""

from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from starlette.routing import Mount, Route

import lavant.server.http
from lavant.server.auth.principal import Scope
from lavant.server.http.openapi import Endpoint
from lavant.v1.run_pb2 import RunKind
from server.access.credentials import OTHER, Everyone, Values, bearer
from support.calls import PATIENCE, ended_run
from support.rules import create_rule
from support.scores import record
from support.server import Stubs
from support.web import text_until_caught_up

pytestmark = pytest.mark.asyncio(loop_scope="module")

# Paths that hold nothing of any tenant, and so need no credential.
PUBLIC = {"/", "/static", "/openapi.json"}
ADMIN = {"/healthz", "/readyz", "/metrics"}
NEEDED = {
    None: "/principal",
    Scope.RUNS_READ: "/runs /runs/{run_id} /runs/{run_id}/events /runs/{run_id}/stream /watch /evaluations "
    "/evaluations/{run_id} /evaluations/{run_id}/stream",
    Scope.SCORES_READ: "/runs/{run_id}/scores /scores /scores/summary /scores/comparison",
    Scope.RULES_READ: "/rules /rules/{rule_id} /alerts",
}
# Paths about all runs, or rules: a credential for some runs is of no use there.
SPANNING = {"/scores", "/scores/summary", "/scores/comparison", "/rules", "/rules/{rule_id}", "/alerts"}
QUERIES = {"/scores/comparison": "baseline_version=1"}
STATIC = Path(lavant.server.http.__file__).parent / "static"


@pytest_asyncio.fixture(loop_scope="module")
async def web(everyone: Everyone) -> AsyncIterator[httpx.AsyncClient]:
    """Whoever asks over HTTP."""
    async with httpx.AsyncClient(base_url=f"http://{everyone.server.app.http_address}", timeout=PATIENCE) as client:
        yield client


def short(path: str) -> str:
    """Return the path of an endpoint as the tables here have it."""
    return path.removeprefix("/api/v1")


def url_of(endpoint: Endpoint, name: str) -> str:
    """Return the URL of an endpoint for things of one ID."""
    return f"{endpoint.path.format(run_id=name, rule_id=name)}?{QUERIES.get(short(endpoint.path), '')}"


def headers(values: Iterable[str]) -> list[tuple[str, str]]:
    """Return the headers of a request with these credentials."""
    return [("authorization", value) for value in values]


async def answer(web: httpx.AsyncClient, url: str, values: Values) -> tuple[int, str]:
    """Return the status and the text of a response; streams are read until they have caught up."""
    async with web.stream("GET", url, headers=headers(values)) as response:
        return response.status_code, await text_until_caught_up(response)


async def make(stubs: Stubs, name: str) -> str:
    """Make one of everything with an ID, and return it."""
    await create_rule(stubs, name)
    await ended_run(stubs, name, kind=RunKind.RUN_KIND_EVALUATION, labels={"of": "someone"})
    await record(stubs, name, run_id=name)
    return name


async def test_every_path_is_in_the_tables(everyone: Everyone) -> None:
    tables = everyone.tables
    needed = {path: scope for scope, paths in NEEDED.items() for path in paths.split()}
    assert {short(endpoint.path): endpoint.scope for endpoint in tables.endpoints} == needed
    paths = {route.path for route in tables.public if isinstance(route, Route | Mount)}
    assert paths == {endpoint.path for endpoint in tables.endpoints} | PUBLIC
    assert {route.path for route in tables.admin if isinstance(route, Route)} == ADMIN
    assert (len(tables.public), len(tables.admin)) == (len(paths), len(ADMIN))
    assert set(needed) >= SPANNING


async def test_bad_credential_is_refused_before_the_query(everyone: Everyone, web: httpx.AsyncClient) -> None:
    paths = [endpoint.path for endpoint in everyone.tables.endpoints]
    for path in [*paths, "/api/", "/api/v1/other", "/api/v1/runs/"]:
        for kind, values in everyone.refused.items():
            for method in ("GET", "HEAD"):
                response = await web.request(method, f"{path}?page_size=x&other=1", headers=headers(values))
                assert response.status_code == 401, (path, kind)
            assert (await web.get(path, headers=headers(values))).json()["error"]["reason"] == "UNAUTHENTICATED"
            assert "acme" not in (await web.get(path, headers=headers(values))).text


async def test_narrow_credential_is_refused_before_the_query(everyone: Everyone, web: httpx.AsyncClient) -> None:
    for endpoint in everyone.tables.endpoints:
        if endpoint.scope is None:
            continue
        _, key = await everyone.caller(set(Scope) - {endpoint.scope, Scope.TENANTS_ADMIN})
        narrow = [bearer(key)]
        narrow += [bearer(everyone.token)] if endpoint.scope == Scope.RULES_READ else []
        for values in narrow:
            response = await web.get(f"{endpoint.path}?page_size=x&other=1", headers=headers(values))
            assert (response.status_code, response.json()["error"]["reason"]) == (403, "PERMISSION_DENIED")
            assert endpoint.scope in response.json()["error"]["message"]


async def test_credential_for_other_runs_is_answered_as_for_none(everyone: Everyone, web: httpx.AsyncClient) -> None:
    owner, _ = await everyone.caller()
    _, key = await everyone.caller(restricted=True)
    theirs, nobodys = await make(owner, "theirs"), "nobody"
    for endpoint in everyone.tables.endpoints:
        for values in (bearer(key), bearer(everyone.token)):
            found, expected = [await answer(web, url_of(endpoint, name), values) for name in (theirs, nobodys)]
            assert (found[0], found[1].replace(theirs, nobodys)) == expected, endpoint.path
            assert "someone" not in found[1]
            assert (found[0] == 403) == (short(endpoint.path) in SPANNING), found


async def test_other_tenant_is_answered_as_for_none(everyone: Everyone, web: httpx.AsyncClient) -> None:
    owner, _ = await everyone.caller()
    _, key = await everyone.caller(tenant=OTHER)
    theirs, nobodys = await make(owner, "foreign"), "missing"
    for endpoint in everyone.tables.endpoints:
        found, expected = [await answer(web, url_of(endpoint, name), bearer(key)) for name in (theirs, nobodys)]
        assert (found[0], found[1].replace(theirs, nobodys)) == expected, endpoint.path
        assert found[0] == (404 if "{" in endpoint.path and not endpoint.path.endswith("/scores") else 200)
        assert "someone" not in found[1]
        assert "acme" not in found[1]


async def test_right_credential_is_served(everyone: Everyone, web: httpx.AsyncClient) -> None:
    owner, _ = await everyone.caller()
    name = await make(owner, "own")
    for endpoint in everyone.tables.endpoints:
        _, key = await everyone.caller({endpoint.scope or Scope.METRICS})
        status, text = await answer(web, url_of(endpoint, name), bearer(key))
        assert status == 200, (endpoint.path, text)
        assert (await web.head(url_of(endpoint, name), headers=headers(bearer(key)))).status_code == 200


async def test_public_paths_are_the_same_for_everybody(everyone: Everyone, web: httpx.AsyncClient) -> None:
    files = [f"/static/{path.relative_to(STATIC).as_posix()}" for path in STATIC.rglob("*") if path.is_file()]
    everybody = [*everyone.refused.values(), bearer((await everyone.caller())[1])]
    for path in ["/", "/openapi.json", *files]:
        answers = [await web.get(path, headers=headers(values)) for values in everybody]
        assert {one.status_code for one in answers} == {200}
        assert len({one.content for one in answers}) == 1
    for path in ("/static", "/static/", "/static/js", "/static/..%2fsite.py", "/static/%2e%2e/site.py", *ADMIN):
        assert (await web.get(path)).status_code in (404, 307), path


async def test_only_reading_is_allowed_whatever_the_credential(everyone: Everyone, web: httpx.AsyncClient) -> None:
    _, key = await everyone.caller()
    for endpoint in everyone.tables.endpoints:
        for method in ("POST", "PUT", "DELETE", "PATCH", "TRACE"):
            for values in ((), bearer(key)):
                assert (await web.request(method, endpoint.path, headers=headers(values))).status_code == 405


async def test_admin_paths_but_metrics_need_no_credential(everyone: Everyone) -> None:
    async with httpx.AsyncClient(base_url=f"http://{everyone.server.app.admin_address}", timeout=PATIENCE) as web:
        for kind, values in everyone.refused.items():
            found = {path: (await web.get(path, headers=headers(values))).status_code for path in ADMIN}
            assert found == {"/healthz": 200, "/readyz": 200, "/metrics": 401}, kind
        _, right = await everyone.caller({Scope.METRICS})
        _, narrow = await everyone.caller(set(Scope) - {Scope.METRICS, Scope.TENANTS_ADMIN})
        _, restricted = await everyone.caller({Scope.METRICS}, restricted=True)
        expected = {right: 200, narrow: 403, restricted: 403, everyone.token: 403}
        for key, status in expected.items():
            assert (await web.get("/metrics", headers=headers(bearer(key)))).status_code == status
        for path in (*PUBLIC, *(endpoint.path for endpoint in everyone.tables.endpoints)):
            assert (await web.get(path, headers=headers(bearer(right)))).status_code == 404
