"""`lavant keys`."""

import json
from pathlib import Path

import pytest

from client.cli.conftest import Lavant
from lavant.client import AsyncClient, KeyLimits
from lavant.v1.run_service_pb2 import ListRunsRequest
from support.command import run_command
from support.server import connected, serving
from support.status import refused


async def test_a_key_is_created_listed_and_revoked(client: AsyncClient, lavant: Lavant) -> None:
    created = await lavant("keys", "create", "agent", "--scope", "runs:read", "--run-name", "weather-*")
    [key] = [key async for key in client.access.list_keys()]
    assert (created.status, created.out[:4]) == (0, "lvk_")
    assert created.out.split("_")[1] == key.id
    assert (key.name, key.tenant, key.scopes) == ("agent", "default", ("runs:read",))
    assert key.restriction is not None
    assert key.restriction.names == ("weather-*",)
    listed = await lavant("keys", "list")
    assert listed.out == f"{key.id}\tagent\tdefault\tactive\truns:read\tsome\n"
    revoked = await lavant("keys", "revoke", key.id)
    assert revoked.out == f"{key.id} (agent) is revoked\n"
    assert (await lavant("keys", "list")).out.split("\t")[3] == "revoked"


async def test_a_key_is_created_with_limits(client: AsyncClient, lavant: Lavant) -> None:
    options = ("--limit", "calls=10", "--limit", "events_per_second=500.5")
    created = await lavant("keys", "create", "agent", "--scope", "runs:read", *options, "--json")
    [key] = [key async for key in client.access.list_keys()]
    assert key.limits == KeyLimits(calls=10, events_per_second=500.5)
    assert json.loads(created.out)["limits"]["calls"] == 10


async def test_a_list_in_json_has_no_secret(client: AsyncClient, lavant: Lavant) -> None:
    created = json.loads((await lavant("keys", "create", "agent", "--scope", "runs:read", "--json")).out)
    listed = json.loads((await lavant("keys", "list", "--json")).out)
    assert created["secret"].startswith("lvk_")
    assert listed["id"] == created["id"]
    assert "secret" not in listed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "name what the key allows with --scope"),
        (("--scope", "runs:write"), "--scope must be one of"),
        (("--scope", "runs:read", "--expires", "soon"), "--expires must be like"),
        (("--scope", "runs:read", "--limit", "open_runs=1"), "--limit must be one of streams"),
        (("--scope", "runs:read", "--limit", "calls=1.5"), "--limit calls must be a whole number"),
        (("--scope", "runs:read", "--limit", "runs_per_second=0"), "must be a number above 0"),
    ],
)
async def test_a_key_that_cannot_be_is_a_usage_error(lavant: Lavant, options: tuple[str, ...], message: str) -> None:
    refusal = await lavant("keys", "create", "agent", *options)
    assert refusal.status == 2
    assert message in refusal.err


async def test_revoking_an_unknown_key_says_how_to_find_it(lavant: Lavant) -> None:
    refusal = await lavant("keys", "revoke", "none")
    assert (refusal.status, refusal.err) == (
        1,
        "lavant: key none does not exist: `lavant keys list` lists those that exist\n",
    )


async def test_a_key_made_in_a_store_works_on_its_server(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/lavant.db"
    ended = await run_command("keys", "create", "admin", "--all-scopes", "--tenant", "acme", "--store", store)
    assert ended.status == 0
    async with (
        serving(tmp_path, auth=["keys"], init_key=True) as server,
        connected(server.target, bearer=ended.out.strip()) as stubs,
    ):
        assert not server.app.first_key  # there is one already
        await stubs.runs.ListRuns(ListRunsRequest())
        busy = await run_command("keys", "create", "admin", "--all-scopes", "--store", store)
        assert busy.status == 1
        assert "in use" in busy.err or "another process" in busy.err
        with refused("UNAUTHENTICATED"):
            await server.stubs.runs.ListRuns(ListRunsRequest())
