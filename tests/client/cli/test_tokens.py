"""`lavant tokens`."""

import json

from client.cli.conftest import Lavant


async def test_created_token_is_printed(lavant: Lavant) -> None:
    ended = await lavant(
        "tokens", "create", "--run", "r", "--label", "team=sky", "--lifetime", "5m", "--name", "user-1"
    )
    assert (ended.status, ended.err) == (0, "")
    assert ended.out.startswith("lva_")
    written = await lavant("tokens", "create", "--conversation", "chat-7", "--json")
    assert set(json.loads(written.out)) == {"token", "expires"}


async def test_token_for_all_runs_or_for_too_long_is_refused(lavant: Lavant) -> None:
    everything = await lavant("tokens", "create")
    assert everything.status != 0
    assert "restriction" in everything.err
    assert "lifetime" in (await lavant("tokens", "create", "--run", "r", "--lifetime", "2h")).err
