"""Where the client dials."""

import re
from typing import Any

import pytest

from lavant.client._wire.target import CHANNEL_OPTIONS, channel_options, resolve_target


def test_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LAVANT_TARGET", raising=False)
    assert resolve_target(None) == "localhost:7447"
    monkeypatch.setenv("LAVANT_TARGET", "lavant.internal:1")
    assert resolve_target(None) == "lavant.internal:1"
    assert resolve_target("other:2") == "other:2"


def test_several_addresses_are_one_target() -> None:
    assert resolve_target(["10.0.0.1:1", "10.0.0.2:1"]) == "ipv4:10.0.0.1:1,10.0.0.2:1"
    assert resolve_target("[::1]:1,[::2]:1") == "ipv6:[::1]:1,[::2]:1"


@pytest.mark.parametrize("targets", [["a:1", "b:1"], ["10.0.0.1:1", "[::1]:1"]])
def test_several_names_are_refused(targets: list[str]) -> None:
    with pytest.raises(ValueError, match="addr"):
        resolve_target(targets)


def test_only_targets_of_several_addresses_are_balanced() -> None:
    assert channel_options("a:1", []) == list(CHANNEL_OPTIONS)
    assert "grpc.service_config" in dict(channel_options("dns:///a:1", []))
    assert channel_options("a:1", [("grpc.primary_user_agent", "x")])[-1] == ("grpc.primary_user_agent", "x")


@pytest.mark.parametrize(
    ("given", "dialled"),
    [
        ("127.0.0.1", "127.0.0.1:7447"),
        ("localhost", "localhost:7447"),
        (" lavant.internal ", "lavant.internal:7447"),
        ("::1", "[::1]:7447"),
        ("[::1]", "[::1]:7447"),
        ("[::1]:1", "[::1]:1"),
        ("dns:///lavant", "dns:///lavant:7447"),
        ("dns:///lavant:1", "dns:///lavant:1"),
        ("ipv4:10.0.0.1", "ipv4:10.0.0.1:7447"),
        ("unix:///run/lavant.sock", "unix:///run/lavant.sock"),
        (["10.0.0.1", "10.0.0.2:1"], "ipv4:10.0.0.1:7447,10.0.0.2:1"),
        ("::1,::2", "ipv6:[::1]:7447,[::2]:7447"),
    ],
)
def test_an_address_without_a_port_has_the_default_one(given: str | list[str], dialled: str) -> None:
    assert resolve_target(given) == dialled


@pytest.mark.parametrize("url", ["http://127.0.0.1:7448", "https://lavant.example/", "grpc://lavant:1"])
def test_a_url_is_refused_with_the_address_to_give(url: str) -> None:
    with pytest.raises(ValueError, match=f"not the URL .*: use '{url.split('/')[2]}'"):
        resolve_target(url)


@pytest.mark.parametrize("target", ["host:", "host:99999", "host:0", "host:x", "a:b:c", "host/path", "two words"])
def test_what_is_no_address_is_refused(target: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"port from 1 to 65535, not {target!r}")):
        resolve_target(target)


@pytest.mark.parametrize("target", [7447, ["a", None], ("127.0.0.1", 7447)])
def test_a_target_that_is_no_text_is_refused(target: Any) -> None:
    with pytest.raises(TypeError, match="target must be 'host:port'"):
        resolve_target(target)
