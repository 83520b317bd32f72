"""Alerts are posted to where they may be, until they were taken, and by one server at a time."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

import pytest

from lavant.server.scores.alerts.addresses import allowed, is_prefix
from lavant.server.scores.alerts.log import AlertLog
from lavant.server.scores.alerts.logs import AlertLogs
from lavant.server.scores.alerts.webhooks import WebhookSender
from lavant.server.store.port import Engine
from lavant.server.streaming.leases import ConsumerLeases
from lavant.v1.event_pb2 import AlertChanged
from lavant.v1.rule_pb2 import Alert, Rule
from support.clock import ManualClock
from support.hook import Hook
from support.scores import TENANT

PREFIX = "https://hooks.example/lavant/"


@pytest.mark.parametrize(
    ("url", "is_allowed"),
    [
        (PREFIX, True),
        (PREFIX + "a?token=b", True),
        ("https://hooks.example.evil/lavant/", False),
        ("https://hooks.example/lavant", False),
        ("https://hooks.example/", False),
        ("http://hooks.example/lavant/", False),
        (PREFIX + "../admin", False),
        (PREFIX + "%2e%2e/admin", False),
        (PREFIX + "..%2fadmin", False),
        (PREFIX + "a/./b", False),
        (PREFIX + "a\\..\\b", False),
        (PREFIX + "a b", False),
        (PREFIX + "a\nb", False),
        (PREFIX + "#a", False),
        (PREFIX + "\N{FIRE}", False),
        ("", False),
    ],
)
def test_an_address_stays_below_a_prefix(url: str, is_allowed: bool) -> None:
    assert allowed(url, ["https://other.example/", PREFIX]) is is_allowed
    assert not allowed(url, [])


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("https://hooks.example/", True),
        ("http://127.0.0.1:8080/a/", True),
        ("https://hooks.example", False),
        ("https://hooks.example/a", False),
        ("ftp://hooks.example/", False),
        ("https:///", False),
        ("https://me@hooks.example/", False),
        ("https://hooks.example:http/", False),
        ("https://hooks.example/?a=/", False),
        ("https://hooks.example/#/", False),
        ("https://hooks.example/../", False),
        ("/", False),
        ("", False),
    ],
)
def test_a_prefix_ends_the_hosts_name(text: str, is_one: bool) -> None:
    assert is_prefix(text) is is_one


@pytest.fixture
def hook() -> Iterator[Hook]:
    opened = Hook()
    yield opened
    opened.close()


@pytest.fixture
def rule(hook: Hook) -> Rule:
    alerts = [Alert(name=name, webhook_url=f"{hook.prefix}{name}?token=hidden") for name in ("low", "high")]
    return Rule(rule_id="rule", alerts=alerts)


Posting = Callable[[], Any]


@pytest.fixture
def posting(engine: Engine, clock: ManualClock, hook: Hook, rule: Rule) -> Posting:
    """Return a context of a server that posts on request."""

    async def rules_of(tenant: str) -> list[Rule]:
        return [rule]

    @asynccontextmanager
    async def opened() -> AsyncIterator[WebhookSender]:
        async with AsyncExitStack() as stack:
            leases = ConsumerLeases(engine.leases, clock)
            stack.push_async_callback(leases.close)
            logs = AlertLogs(engine, clock, lambda: [TENANT])
            stack.callback(logs.close)
            is_allowed = partial(allowed, prefixes=[hook.prefix])
            sender = WebhookSender(clock=clock, logs=logs, leases=leases, rules_of=rules_of, allowed=is_allowed)
            stack.push_async_callback(sender.close)
            yield sender

    return opened


@pytest.fixture
async def log(engine: Engine, clock: ManualClock) -> AlertLog:
    return AlertLog(engine, clock, TENANT)


async def pass_once(sender: WebhookSender) -> None:
    """Let a server post what is due."""
    await sender.run_once()
    await sender.idle()


def change(alert: str = "low", *, firing: bool = True) -> AlertChanged:
    return AlertChanged(rule_id="rule", alert=alert, firing=firing, value=0.25, threshold=0.5, count=3, message="low")


async def test_a_change_is_posted_once(log: AlertLog, hook: Hook, posting: Posting) -> None:
    async with posting() as sender:
        await pass_once(sender)
        await log.append([(change(), True), (change("high"), False)])
        await pass_once(sender)
        await pass_once(sender)
    content = {
        "rule_id": "rule",
        "alert": "low",
        "firing": True,
        "value": 0.25,
        "threshold": 0.5,
        "count": "3",
        "message": "low",
        "error_count": "0",
    }
    assert hook.posts == [("/hooks/low?token=hidden", "default/lavant.alerts.2", content)]
    await log.refresh()
    assert not log.deliveries
    async with posting() as another_life:
        await pass_once(another_life)
    assert len(hook.posts) == 1


async def test_it_is_posted_until_it_was_taken(
    log: AlertLog, hook: Hook, posting: Posting, clock: ManualClock, capsys: pytest.CaptureFixture[str]
) -> None:
    hook.answers = [500, 307, 404, 200]
    await log.append([(change(), True)])
    async with posting() as sender:
        for pause in (1, 2, 4):
            await pass_once(sender)
            count = len(hook.posts)
            clock.advance(pause - 0.1)
            await pass_once(sender)
            assert len(hook.posts) == count
            clock.advance(0.1)
        await pass_once(sender)
        clock.advance(400)
        await pass_once(sender)
    logged = capsys.readouterr().out
    assert "webhook_failed" in logged
    assert "hidden" not in logged
    assert [(path, alert_id) for path, alert_id, _ in hook.posts] == [
        ("/hooks/low?token=hidden", "default/lavant.alerts.2")
    ] * 4


async def test_changes_of_an_alert_keep_their_order_and_do_not_hold_up_others(
    log: AlertLog, hook: Hook, posting: Posting, clock: ManualClock
) -> None:
    await log.append([(change(), True), (change(firing=False), True)])
    hook.answers = [503]
    async with posting() as sender:
        await pass_once(sender)
        await log.append([(change("high"), True)])
        await pass_once(sender)
        clock.advance(1)
        await pass_once(sender)
        await pass_once(sender)
    assert [alert_id for _, alert_id, _ in hook.posts] == [f"default/lavant.alerts.{number}" for number in (2, 4, 2, 3)]


async def test_another_life_goes_on(log: AlertLog, hook: Hook, posting: Posting) -> None:
    hook.answers = [500]
    await log.append([(change(), True)])
    for _ in range(3):
        async with posting() as sender:
            await pass_once(sender)
    assert len(hook.posts) == 2


async def test_one_server_posts_at_a_time(log: AlertLog, hook: Hook, posting: Posting, clock: ManualClock) -> None:
    async with posting() as there:
        async with posting() as here:
            hook.answers = [500]
            await log.append([(change(), True)])
            await pass_once(here)
            await pass_once(there)
            assert len(hook.posts) == 1
        await pass_once(there)
        await pass_once(there)
    assert len(hook.posts) == 2


async def test_nothing_is_posted_after_a_day(log: AlertLog, hook: Hook, posting: Posting, clock: ManualClock) -> None:
    hook.answers = [500] * 9
    await log.append([(change(), True)])
    async with posting() as sender:
        await pass_once(sender)
    clock.advance(24 * 3600 + 1)  # while no server renews its lease every five seconds
    async with posting() as sender:
        await pass_once(sender)
    assert len(hook.posts) == 1
    await log.refresh()
    assert not log.deliveries


@pytest.mark.parametrize("address", ["", "http://127.0.0.1:1/"], ids=["none", "not allowed"])
async def test_an_address_that_is_gone_is_not_waited_for(
    log: AlertLog, hook: Hook, posting: Posting, rule: Rule, address: str
) -> None:
    await log.append([(change(), True)])
    rule.alerts[0].webhook_url = address
    async with posting() as sender:
        await pass_once(sender)
    await log.refresh()
    assert not log.deliveries
    assert not hook.posts


async def test_a_server_that_is_not_there_is_tried_again(
    log: AlertLog, hook: Hook, posting: Posting, clock: ManualClock
) -> None:
    await log.append([(change(), True)])
    hook.close()
    async with posting() as sender:
        await pass_once(sender)
        await log.refresh()
        assert log.deliveries
