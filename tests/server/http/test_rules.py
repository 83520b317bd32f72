"""Rules as JSON, and on the dashboard while they are at work."""

from pathlib import Path
from typing import Any

import httpx
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict
from playwright.async_api import expect

from lavant.v1.rule_pb2 import Alert
from lavant.v1.rule_service_pb2 import ListRulesRequest
from server.http.browser import HOSTILE, Site, needs_chromium
from server.http.test_pages import listed
from support.rules import Worker, backfill, create_rule, finish, get_rule
from support.server import Server, connected, serving

LIVE = 40_000  # ms: the server checks alerts every 10 s, and the page at rules
LOW = Alert(name="correct is low", score_name="correct", below=0.5, window=Duration(seconds=3_600), min_count=3)


async def get_json(web: httpx.AsyncClient, path: str, **asked: Any) -> Any:
    return (await web.get(path, params=asked)).raise_for_status().json()


async def test_pages_of_rules(web: httpx.AsyncClient, server: Server) -> None:
    for number in range(5):
        await create_rule(server.stubs, f"rule-{number}", sample_rate=0.5, alerts=[LOW])
    rules = await listed(web, "/api/v1/rules", "rules", page_size=2)
    assert [rule["rule_id"] for rule in rules] == [f"rule-{number}" for number in (4, 3, 2, 1, 0)]
    page = await server.stubs.rules.ListRules(ListRulesRequest(page_size=2))
    assert await get_json(web, "/api/v1/rules", page_size=2) == MessageToDict(page, preserving_proto_field_name=True)
    assert await get_json(web, "/api/v1/rules/rule-2") == rules[2]
    assert rules[2]["alerts"][0] == {
        "name": "correct is low", "score_name": "correct", "below": 0.5, "window": "3600s", "min_count": "3",
    }  # fmt: skip


async def test_webhooks_are_not_shown(tmp_path: Path) -> None:
    secret = "https://hooks.test/secret"
    async with serving(tmp_path, http="127.0.0.1:0", webhooks=["https://hooks.test/"]) as server:
        alert = Alert(name="low", below=0.5, window=Duration(seconds=60), webhook_url=secret)
        created = await create_rule(server.stubs, "rule", alerts=[alert])
        assert created.alerts[0].webhook_url == "https://hooks.test/…"
        async with httpx.AsyncClient(base_url=f"http://{server.app.http_address}") as web:
            for path in ("/api/v1/rules", "/api/v1/rules/rule"):
                text = (await web.get(path)).raise_for_status().text
                assert "low" in text
                assert "secret" not in text
        assert (await get_rule(server.stubs, "rule")).alerts[0].webhook_url == "https://hooks.test/…"


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/api/v1/rules?name=a", 400, "name: is not a parameter of this path; use one of page_size, page_token"),
        ("/api/v1/rules?page_size=1001", 400, "page_size: must be less than or equal to 1000"),
        ("/api/v1/rules?page_token=x", 400, "page_token: was not issued by this list"),
        ("/api/v1/rules/none", 404, "rule none does not exist"),
        ("/api/v1/rules/a%20b", 400, "rule_id: must be"),
    ],
)
async def test_what_is_wrong_is_named(web: httpx.AsyncClient, path: str, status: int, said: str) -> None:
    answer = await web.get(path)
    assert (answer.status_code, set(answer.json())) == (status, {"error"})
    assert answer.json()["error"]["message"].startswith(said)


@needs_chromium
@pytest.mark.timeout(180)
async def test_rules_and_alerts_are_live(site: Site) -> None:
    async with connected(site.process.target) as stubs:
        await finish(stubs, ["earlier"])
        await create_rule(stubs, "watched", labels={"feeling": "neutral"}, sample_rate=1, alerts=[LOW])
        await backfill(stubs, "watched")
        page = await site.open("scores")
        rule = page.locator("tr[data-rule=watched]")
        await expect(rule).to_contain_text("correct is low")
        await expect(rule).to_contain_text("feeling=neutral")
        await expect(page.locator(".alert")).to_have_count(0)
        ids = await finish(stubs, [f"run-{number}" for number in range(4)])
        worker = await Worker(stubs, rule_id="watched").opened()
        await worker.got(5)
        await worker.complete(*ids, correct=0.25)
        alert = page.locator(".alert")
        await expect(alert).to_contain_text("correct is low", timeout=LIVE)
        await expect(alert).to_contain_text("rule watched")
        await expect(page.locator("#state")).to_have_text("live")
        await expect(rule.locator("td")).to_have_text(
            ["correct v1", "5", "5", "4", "0", "1", "correct is low firing below 0.5"], timeout=LIVE
        )
        await expect(rule).to_contain_text("backfilled: 1 examined, 1 selected")
        await expect(page.locator(".legend tbody tr")).to_contain_text("correct · v1", timeout=LIVE)
        await alert.get_by_role("button", name="Show its scores").click()
        await expect(page).to_have_url(f"{site.url}/#/scores?rule_id=watched&name=correct")
        await page.locator(".dot").last.press("Enter")
        await expect(page.locator(".evaluated tbody tr")).to_have_count(4)
        await finish(stubs, [f"better-{number}" for number in range(16)])
        await worker.got(21)
        await worker.complete("earlier", *(f"better-{number}" for number in range(16)), correct=1.0)
        await expect(alert).to_have_count(0, timeout=LIVE)
        await page.get_by_text("What alerts did lately").click()
        await expect(page.locator(".changes .badge")).to_have_text(["over", "firing"])
        worker.cut()
    async with httpx.AsyncClient(base_url=site.url) as web:
        events = (await get_json(web, "/api/v1/alerts"))["events"]
    assert [event["alert_changed"].get("firing", False) for event in events] == [True, False]
    site.check_quiet()


@needs_chromium
async def test_a_rule_is_shown_as_text(site: Site) -> None:
    name = HOSTILE.replace("\x00", "").replace("\r\n", "")
    async with connected(site.process.target) as stubs:
        alert = Alert(name=name[:128], above=1.5, window=Duration(seconds=60))
        await create_rule(stubs, "hostile", labels={name[:64]: name}, filter={"names": [name]}, alerts=[alert])
    page = await site.open("scores")
    await expect(page.locator("tr[data-rule=hostile]")).to_contain_text("<img src=x onerror=")
    await expect(page.locator("tr[data-rule=hostile] td").last).to_contain_text("<img src=x onerror=")
    await expect(page.locator("main img, main script")).to_have_count(0)
    site.check_quiet()
