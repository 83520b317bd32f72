"""Bounds of rules: their number and alerts per tenant, pages in bytes, and what is shown of webhooks."""

from pathlib import Path

from google.protobuf.duration_pb2 import Duration

from lavant.v1.event_pb2 import Evaluator
from lavant.v1.rule_pb2 import Alert, Rule
from lavant.v1.rule_service_pb2 import ListRulesRequest
from support.rules import create_rule, delete_rule, get_rule, update_rule
from support.server import Server, serving
from support.status import refused

SECRET = "https://hooks.test/services/secret"
SHOWN = "https://hooks.test/\N{HORIZONTAL ELLIPSIS}"
ELSEWHERE = "https://elsewhere.test/\N{HORIZONTAL ELLIPSIS}"


def alert(name: str = "low", url: str = "", below: float = 0.5) -> Alert:
    return Alert(name=name, below=below, window=Duration(seconds=60), webhook_url=url)


async def test_rules_beyond_the_bound_are_refused(tmp_path: Path) -> None:
    async with serving(tmp_path, max_rules=2) as server:
        for rule_id in ("one", "two", "two"):
            await create_rule(server.stubs, rule_id)
        with refused("QUOTA_EXCEEDED") as refusal:
            await create_rule(server.stubs, "three")
        assert refusal.metadata == {"kind": "rules", "limit": "2"}
        await delete_rule(server.stubs, "one")
        await create_rule(server.stubs, "three")


async def test_alerts_beyond_the_bound_are_refused(tmp_path: Path) -> None:
    async with serving(tmp_path, max_alerts=3) as server:
        await create_rule(server.stubs, "one", alerts=[alert("a"), alert("b")])
        with refused("QUOTA_EXCEEDED") as refusal:
            await create_rule(server.stubs, "two", alerts=[alert("a"), alert("b")])
        assert refusal.metadata == {"kind": "alerts", "limit": "3"}
        await create_rule(server.stubs, "two", alerts=[alert("a")])
        with refused("QUOTA_EXCEEDED"):
            await update_rule(server.stubs, Rule(rule_id="two", alerts=[alert("a"), alert("b")]), "alerts")
        await update_rule(server.stubs, Rule(rule_id="two", alerts=[alert("b")]), "alerts")


async def test_a_page_of_large_rules_ends_after_a_mebibyte(server: Server) -> None:
    large = [Evaluator(name="large", config_json=f'"{"x" * 60_000}"')]
    names = [f"rule-{number:02}" for number in range(40)]
    for name in names:
        await create_rule(server.stubs, name, evaluators=large)
    found: list[str] = []
    token, pages = "", 0
    while token or not found:
        page = await server.stubs.rules.ListRules(ListRulesRequest(page_size=1_000, page_token=token))
        assert page.ByteSize() < 2 << 20
        found += [rule.rule_id for rule in page.rules]
        token, pages = page.next_page_token, pages + 1
    assert found == names[::-1]
    assert pages > 1


async def test_a_webhook_is_shown_without_its_secret_and_survives_updates(tmp_path: Path) -> None:
    async with serving(tmp_path, webhooks=["https://hooks.test/"]) as server:
        made = await create_rule(server.stubs, alerts=[alert(url=SECRET)])
        listed = (await server.stubs.rules.ListRules(ListRulesRequest())).rules[0]
        got = await get_rule(server.stubs)
        assert [one.alerts[0].webhook_url for one in (made, listed, got)] == [SHOWN] * 3
        got.alerts[0].below = 0.25
        changed = await update_rule(server.stubs, got, "alerts")
        assert (changed.alerts[0].below, changed.alerts[0].webhook_url) == (0.25, SHOWN)
        again = await create_rule(server.stubs, alerts=[alert(url=SECRET, below=0.25)])
        assert again.revision == changed.revision  # equal to the stored rule, which has the whole address


async def test_an_address_as_it_is_shown_cannot_be_stored(tmp_path: Path) -> None:
    async with serving(tmp_path, webhooks=["https://hooks.test/"]) as server:
        with refused("INVALID_FIELD", "rule.alerts[0].webhook_url"):
            await create_rule(server.stubs, alerts=[alert(url=SHOWN)])
        await create_rule(server.stubs, alerts=[alert(url=SECRET)])
        for wrong in (alert("other", SHOWN), alert("low", ELSEWHERE)):
            with refused("INVALID_FIELD", "rule.alerts[0].webhook_url"):
                await update_rule(server.stubs, Rule(rule_id="rule", alerts=[wrong]), "alerts")
