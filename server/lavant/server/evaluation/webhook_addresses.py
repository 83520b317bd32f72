"""Addresses of webhooks in rules that callers see: they often hold secrets, so only their origin is shown."""

from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from lavant.v1.rule_pb2 import Alert, Rule

HIDDEN = "/\N{HORIZONTAL ELLIPSIS}"  # no address ends so: it is not ASCII


def shown(address: str) -> str:
    """Return an address as callers see it: its origin, and that more follows."""
    if not address:
        return ""
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{HIDDEN}"


def hide(rule: Rule) -> None:
    """Shorten the addresses of a rule that a caller gets."""
    for alert in rule.alerts:
        alert.webhook_url = shown(alert.webhook_url)


def without_hidden(rule: Rule) -> Rule:
    """Return a copy of a rule without the addresses that were shown shortened."""
    copy = Rule()
    copy.CopyFrom(rule)
    for alert in copy.alerts:
        if alert.webhook_url.endswith(HIDDEN):
            alert.ClearField("webhook_url")
    return copy


def restore(alerts: Iterable[Alert], stored: Mapping[str, str]) -> None:
    """Replace addresses that were shown shortened by the stored ones of the alerts with the same names."""
    for alert in alerts:
        known = stored.get(alert.name, "")
        if known and alert.webhook_url == shown(known):
            alert.webhook_url = known
