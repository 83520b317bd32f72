"""Where credentials are sent, and what the environment says about them."""

import base64
import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from lavant.client import TLS, AsyncClient, Client
from lavant.client._wire.security import Secret, expiry_of, is_loopback, resolve_tls
from lavant.client._wire.target import CHANNEL_OPTIONS, resolve_target
from support.certificates import Authority, encrypt

KEY = "lvk_abc_secret"


@pytest.fixture(autouse=True)
def _nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("API_KEY", "TLS", "TLS_CA", "TLS_CERT", "TLS_KEY", "INSECURE", "TARGET"):
        monkeypatch.delenv(f"LAVANT_{name}", raising=False)


LOOPBACK: list[str | list[str]] = [
    "localhost",
    "127.0.0.1:1",
    "127.9.9.9",
    "::1",
    "[::1]:1",
    "dns:///localhost:1",
    "unix:///run/lavant.sock",
]
ELSEWHERE: list[str | list[str]] = [
    "lavant",
    "10.0.0.1:1",
    "localhost.example.org",
    "dns:///lavant:1",
    ["127.0.0.1", "10.0.0.1"],
    "[::]:1",
]


@pytest.mark.parametrize("kind", [AsyncClient, Client])
@pytest.mark.parametrize(
    "credential", [{"api_key": KEY}, {"token": lambda: KEY}, {"metadata": [("authorization", f"Bearer {KEY}")]}]
)
def test_credentials_in_plain_text_are_for_this_machine_only(kind: Any, credential: dict[str, Any]) -> None:
    for target in LOOPBACK:
        kind(target, **credential)
    for target in ELSEWHERE:
        kind(target)
        kind(target, insecure=True, **credential)
        kind(target, tls=True, **credential)
        with pytest.raises(ValueError, match="in plain text: pass tls=True") as refused:
            kind(target, **credential)
        assert KEY not in str(refused.value)


def test_all_addresses_of_a_target_must_be_loopback() -> None:
    assert is_loopback(resolve_target(["127.0.0.1:1", "127.0.0.2:2"]))
    assert not is_loopback(resolve_target(["127.0.0.1:1", "10.0.0.1:2"]))


def test_the_environment_has_a_key_and_may_allow_plain_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAVANT_API_KEY", KEY)
    with pytest.raises(ValueError, match="api_key would be sent to lavant:7447"):
        AsyncClient("lavant")
    monkeypatch.setenv("LAVANT_INSECURE", "true")
    AsyncClient("lavant")
    with pytest.raises(ValueError, match="in plain text"):
        AsyncClient("lavant", insecure=False)
    monkeypatch.setenv("LAVANT_INSECURE", "perhaps")
    with pytest.raises(ValueError, match="LAVANT_INSECURE must be true or false, not 'perhaps'"):
        AsyncClient("lavant")


def test_several_credentials_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAVANT_API_KEY", KEY)
    AsyncClient(token=lambda: "other")  # the environment is no second one
    with pytest.raises(ValueError, match="one of api_key and token"):
        AsyncClient(api_key=KEY, token=lambda: KEY)
    with pytest.raises(ValueError, match="one of api_key and metadata 'authorization'"):
        AsyncClient(api_key=KEY, metadata=[("authorization", KEY)])


@pytest.mark.parametrize("key", ["two words", "line\n", "ключ", "tab\t"])
def test_a_key_that_cannot_be_sent_is_refused_without_showing_it(key: str) -> None:
    with pytest.raises(ValueError, match="api_key must be printable ASCII") as refused:
        AsyncClient(api_key=key)
    assert key not in str(refused.value)


def test_a_token_that_is_no_function_is_refused() -> None:
    bad: Any = KEY
    with pytest.raises(TypeError, match="token must be a function"):
        AsyncClient(token=bad)


def test_tls_comes_from_the_argument_or_the_environment() -> None:
    assert resolve_tls(None, {}) is None
    assert resolve_tls(True, {}) == TLS()
    assert resolve_tls("ca.pem", {"LAVANT_TLS_CA": "other.pem"}) == TLS(ca="ca.pem")
    assert resolve_tls(None, {"LAVANT_TLS": "1"}) == TLS()
    files = {"LAVANT_TLS_CA": "ca.pem", "LAVANT_TLS_CERT": "a.pem", "LAVANT_TLS_KEY": "a.key"}
    assert resolve_tls(None, files) == resolve_tls(True, files) == TLS(ca="ca.pem", cert="a.pem", key="a.key")
    assert resolve_tls(False, files) is None
    with pytest.raises(ValueError, match="both cert and key"):
        resolve_tls(None, {"LAVANT_TLS_CERT": "a.pem"})
    number: Any = 1
    with pytest.raises(TypeError, match="tls must be True"):
        resolve_tls(number, {})


def test_bad_files_are_named_when_the_client_is_created(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair, other = authority.issue("a", "a.example.org"), authority.issue("b", "b.example.org")
    bad = {
        "the ca file missing.pem cannot be read": TLS(ca="missing.pem"),
        "has no certificates": TLS(ca=pair.key),
        "KEY_VALUES_MISMATCH": TLS(cert=pair.cert, key=other.key),
    }
    for message, tls in bad.items():
        with pytest.raises(ValueError, match=message):
            AsyncClient(tls=tls)
    AsyncClient(tls=TLS(ca=authority.path, cert=pair.cert, key=pair.key))
    encrypt(pair.key)
    with pytest.raises(ValueError, match="the key is encrypted"):
        AsyncClient(tls=TLS(cert=pair.cert, key=pair.key))


def test_the_repr_of_a_secret_hides_it() -> None:
    secret = Secret(KEY)
    assert secret == KEY
    assert KEY not in f"{secret!r} {(secret,)!r} { ({'a': secret})!r}"
    assert KEY not in repr(vars(AsyncClient(api_key=KEY))) + repr(vars(AsyncClient(api_key=KEY)._connection))
    assert pickle.loads(pickle.dumps(secret)) == KEY


def test_proxies_of_the_environment_are_not_used() -> None:
    assert ("grpc.enable_http_proxy", 0) in CHANNEL_OPTIONS


def token(claims: Any) -> str:
    """A JWT without a valid signature."""
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"e30.{payload}.signature"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (token({"exp": 1_700_000_000}), 1_700_000_000.0),
        (token({"exp": "1700000000"}), None),
        (token({"exp": True}), None),
        (token([]), None),
        ("a.!.c", None),
        ("a.gg.c", None),
        (KEY, None),
    ],
)
def test_the_expiry_of_a_token_is_read_if_it_has_one(text: str, expected: float | None) -> None:
    assert expiry_of(text) == expected
