"""Where the client dials."""

import pytest

from lavant.client._target import CHANNEL_OPTIONS, channel_options, resolve_target


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
