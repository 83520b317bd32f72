"""Settings: where they come from, which come first, and what is said of bad ones."""

from pathlib import Path

import pytest
from pydantic import ValidationError
from pydantic_settings import SettingsError

from lavant.server import __main__ as command
from lavant.server.app.secret_files import secrets_in
from lavant.server.app.settings import Settings
from support.server import settings_for

KEY = "0123456789abcdef" * 2


@pytest.fixture(autouse=True)
def _nothing_is_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (
        "LISTEN",
        "HTTP",
        "STORE",
        "CONFIG",
        "MAX_STREAMS",
        "TOKEN_KEYS",
        "TOKEN_KEYS_FILE",
        "STORE_FILE",
        "INSECURE",
    ):
        monkeypatch.delenv(f"LAVANT_{name}", raising=False)
    monkeypatch.setenv("LAVANT_CONFIG", "")


def read(*flags: str) -> Settings:
    """Read the settings as the command does."""
    return command._read_settings(list(flags))


def secrets(settings: Settings) -> dict[str, str]:
    """Return the keys of tokens as they were given."""
    return {key_id: key.get_secret_value() for key_id, key in settings.token_keys.items()}


def complaint(capsys: pytest.CaptureFixture[str], *flags: str) -> str:
    """The one line that is said of bad settings."""
    with pytest.raises((ValidationError, SettingsError)):
        read(*flags)  # were they good, the command would serve
    assert command.main(list(flags)) == 2
    out, err = capsys.readouterr()
    assert not out
    (line,) = err.splitlines()
    assert line.startswith("lavant: ")
    return line


def test_the_default_is_loopback_and_a_file() -> None:
    settings = read()
    assert settings.listen == "127.0.0.1:7447"
    assert settings.store_path == Path("lavant.db")
    assert not settings.store_is_shared
    assert settings.serves_reflection
    assert not settings.insecure


def test_flags_come_before_the_environment_and_that_before_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "lavant.toml"
    file.write_text('listen = "127.0.0.1:1"\nmax_streams = 1\nlog_level = "error"\nreflection = true\n')
    monkeypatch.setenv("LAVANT_LISTEN", "127.0.0.1:2")
    monkeypatch.setenv("LAVANT_MAX_STREAMS", "2")

    settings = read("--config", str(file), "--listen", "127.0.0.1:3")

    assert settings.listen == "127.0.0.1:3"
    assert settings.max_streams == 2
    assert settings.log_level == "error"
    assert settings.reflection
    assert settings.tail_bytes == 1 << 20


@pytest.mark.parametrize("how", ["flag", "flag=", "environment"])
def test_the_file_can_be_named_in_several_ways(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, how: str) -> None:
    file = tmp_path / "lavant.toml"
    file.write_text(f'[token_keys]\nold = "{KEY}"\n')
    if how == "environment":
        monkeypatch.setenv("LAVANT_CONFIG", str(file))
    flags = {"flag": ("--config", str(file)), "flag=": (f"--config={file}",), "environment": ()}[how]
    assert secrets(read(*flags)) == {"old": KEY}


def test_all_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAVANT_STORE", "sqlite:////var/lib/lavant.db")
    monkeypatch.setenv("LAVANT_TOKEN_KEYS", f'{{"new": "{KEY}", "old": "{KEY}"}}')
    monkeypatch.setenv("LAVANT_REFLECTION", "true")
    settings = read()
    assert settings.store_path == Path("/var/lib/lavant.db")
    assert list(settings.token_keys) == ["new", "old"]
    assert settings.reflection


def test_flags_are_spelled_with_hyphens() -> None:
    settings = read("--max-streams", "7", "--reflection", "--log-format=json", "--token-keys", f"a={KEY}")
    assert (settings.max_streams, settings.reflection, settings.log_format) == (7, True, "json")
    assert secrets(settings) == {"a": KEY}


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "localhost", "[::1]", "[0:0:0:0:0:0:0:1]"])
def test_loopback_needs_no_permission(host: str) -> None:
    assert read("--listen", f"{host}:0").host == host


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "[::]", "10.0.0.1", "192.168.1.1", "[fe80::1]", "example.com", "localhost.example.com", "*"]
)
def test_beyond_loopback_needs_permission(capsys: pytest.CaptureFixture[str], host: str) -> None:
    line = complaint(capsys, "--listen", f"{host}:0")
    assert f"listening on {host} would let everyone" in line
    assert "--insecure" in line
    assert read("--listen", f"{host}:0", "--insecure").host == host


def test_http_beyond_loopback_has_names() -> None:
    settings = read("--http", "0.0.0.0:7448", "--http-hosts", "lavant.example.org", "--insecure")
    assert settings.http_hosts == ["lavant.example.org"]
    assert read("--http", "off", "--listen", "0.0.0.0:0", "--insecure").http_hosts == []


@pytest.mark.parametrize(
    "origin",
    ["https://a.org", "http://localhost:5173", "http://[::1]:3000", "https://a-b.c.org:8443", "capacitor://localhost"],
)
def test_origins_of_pages_are_accepted(origin: str) -> None:
    assert read("--http-origins", origin).http_origins == [origin]


BAD = {
    "no port": (("--listen", "127.0.0.1"), "listen: must be HOST:PORT"),
    "no host": (("--listen", ":7447"), "listen: must be HOST:PORT"),
    "large port": (("--listen", "127.0.0.1:65536"), "listen: must be HOST:PORT"),
    "named port": (("--listen", "127.0.0.1:http"), "listen: must be HOST:PORT"),
    "foreign digits": (("--listen", "127.0.0.1:١٢"), "listen: must be HOST:PORT"),
    "an address without brackets": (("--listen", "::1:7447"), "listen: must be HOST:PORT"),
    "a socket": (("--listen", "unix:/tmp/lavant"), "listen: must be HOST:PORT"),
    "a resolver": (("--listen", "dns:///127.0.0.1:7447"), "listen: must be HOST:PORT"),
    "two hosts": (("--listen", "127.0.0.1,10.0.0.1:7447 "), "listen: must be HOST:PORT"),
    "unknown store": (("--store", "postgres://x"), "store: must be sqlite:///PATH"),
    "store without a path": (("--store", "sqlite:///"), "store: must be sqlite:///PATH"),
    "store on no server": (("--store", "nats://"), "store: must be sqlite:///PATH"),
    "no replicas": (("--nats-replicas", "0"), "nats_replicas: Input should be greater"),
    "store as a bare path": (("--store", "lavant.db"), "store: must be sqlite:///PATH"),
    "http": (("--http", "nowhere"), "http: must be HOST:PORT"),
    "http beyond loopback": (("--http", "0.0.0.0:7448"), "listening on 0.0.0.0 would let everyone"),
    "admin": (("--admin", "nowhere"), "admin: must be HOST:PORT"),
    "admin beyond loopback": (("--admin", "0.0.0.0:7449"), "listening on 0.0.0.0 would let everyone"),
    "http beyond loopback without names": (
        ("--http", "0.0.0.0:7448", "--insecure"),
        "http listens on 0.0.0.0, beyond loopback; list the host names under which it is called with --http-hosts",
    ),
    **{
        f"origin {origin}": (("--http-origins", origin), f"http_origins: {origin!r} is no origin of pages")
        for origin in ("*", "example.org", "https://", "https://a.org/", "https://A.org", "https://*.a.org")
    },
    "default port of an origin": (("--http-origins", "https://a.org:443"), "without a path or the default port"),
    "no streams": (("--max-streams", "0"), "max_streams: Input should be greater than or equal to 1"),
    "no publishing calls": (("--max-publishing-calls", "0"), "max_publishing_calls: Input should be greater"),
    "streams in words": (("--max-streams", "many"), "max_streams: Input should be a valid integer"),
    "streams beyond what a process can serve": (("--max-streams", "2147483648"), "max_streams: Input should be less"),
    "connections beyond gRPC's numbers": (("--max-connections", "2147483648"), "max_connections: Input should be less"),
    "endless write timeout": (("--write-timeout", "1e300"), "write_timeout: Input should be less"),
    "endless drain": (("--drain-timeout", "1e300"), "drain_timeout: Input should be less"),
    "huge tail": (("--tail-bytes", str(2**63)), "tail_bytes: Input should be less"),
    "huge store": (("--nats-max-bytes", str(2**63)), "nats_max_bytes: Input should be less"),
    "deep JSON": (("--token-keys", "[" * 100_000), "token_keys"),
    "no connections": (("--max-connections", "0"), "max_connections: Input should be greater"),
    "short age": (("--max-stream-age", "0.5"), "max_stream_age: Input should be greater"),
    "long age": (("--max-stream-age", "1e9"), "max_stream_age: Input should be less"),
    "no write timeout": (("--write-timeout", "0"), "write_timeout: Input should be greater"),
    "negative drain": (("--drain-timeout", "-1"), "drain_timeout: Input should be greater"),
    "webhooks": (("--webhooks", "https://hooks.example"), "webhooks: "),
    "small tail": (("--tail-bytes", "10"), "tail_bytes: Input should be greater"),
    "no quota": (("--tenant-streams", "0"), "tenant_streams: Input should be greater"),
    "unknown quota": (
        ("--tenant-quotas", '{"a": {"cats": 1}}'),
        "'cats' of tenant 'a' is no quota; use streams",
    ),
    "empty quota": (("--tenant-quotas", '{"a": {"calls": 0}}'), "calls of tenant 'a' must be more than 0"),
    "short key": (("--token-keys", "a=00ff"), "token_keys: key 'a' must be at least 32 hexadecimal digits"),
    "key that is no number": (("--token-keys", f"a={KEY[:-1]}z"), "token_keys: key 'a' must be at least 32"),
    "long key id": (("--token-keys", f"{'a' * 17}={KEY}"), "token_keys: a key needs an id of 1 to 16"),
    "the store's own key id": (("--token-keys", f"store={KEY}"), "token_keys: a key needs an id of 1 to 16"),
    "certificate without key": (("--tls-cert", "a.pem"), "tls_cert needs tls_key"),
    "key without certificate": (("--tls-key", "a.key"), "tls_key needs tls_cert"),
    "client CA without certificate": (("--tls-client-ca", "ca.pem"), "tls_client_ca needs tls_cert and tls_key"),
    "mtls without a table": (("--auth", "mtls"), "auth mtls needs tls_client_ca and mtls_principals"),
    "a table without mtls": (("--mtls-principals", "p.toml"), "mtls_principals has no effect without --auth mtls"),
    "TLS beyond loopback without authentication": (
        ("--listen", "0.0.0.0:0", "--tls-cert", "a.pem", "--tls-key", "a.key"),
        "listening on 0.0.0.0 would let everyone",
    ),
    "another key id of the store": (("--token-keys", f"store-2={KEY}"), "token_keys: a key needs an id of 1 to 16"),
    "file of keys that is missing": (
        ("--token-keys-file", "no.keys"),
        "token_keys_file: no.keys cannot be read: No such",
    ),
    "a certificate for NATS without a key": (("--nats-cert", "a.pem"), "nats_cert needs nats_key"),
    "a certificate for NATS without TLS": (("--nats-cert", "a", "--nats-key", "b"), "nats_cert needs nats_ca"),
    "a user of NATS without a password": (("--nats-user", "lavant"), "nats_user needs nats_password"),
    "a password without a user": (("--nats-password", "hunter2"), "nats_password needs nats_user"),
    "two credentials for NATS": (
        ("--nats-user", "a", "--nats-password", "b", "--nats-credentials", "c"),
        "nats_user and nats_credentials are both set",
    ),
    "missing file": (("--config", "missing.toml"), "missing.toml, which LAVANT_CONFIG or --config names, is not a"),
    "a folder as file": (("--config", "."), "is not a file"),
}


@pytest.mark.parametrize(("flags", "expected"), BAD.values(), ids=BAD)
def test_a_bad_value_is_named_in_one_line(
    capsys: pytest.CaptureFixture[str], flags: tuple[str, ...], expected: str
) -> None:
    line = complaint(capsys, *flags)
    assert expected in line
    assert KEY[:-1] not in line


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
@pytest.mark.parametrize("flag", ["--max-stream-age", "--write-timeout", "--drain-timeout"])
def test_times_are_numbers(capsys: pytest.CaptureFixture[str], flag: str, value: str) -> None:
    assert flag[2:].replace("-", "_") in complaint(capsys, f"{flag}={value}")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"listen = = 1", "cannot be read as TOML: Invalid value (at line 1, column 10)"),
        (b"\xff\xfe", "cannot be read as TOML"),
        (b'lisen = "127.0.0.1:0"', "lisen: is not a setting"),
        (b"max_streams = 0", "max_streams: Input should be greater"),
    ],
)
def test_a_bad_file_is_named_in_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, content: bytes, expected: str
) -> None:
    (tmp_path / "bad.toml").write_bytes(content)
    assert expected in complaint(capsys, "--config", "bad.toml")


def test_bad_json_in_the_environment(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAVANT_TOKEN_KEYS", "{")
    assert "token_keys" in complaint(capsys)


def test_an_unknown_flag_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        command.main(["--lisen", "127.0.0.1:0"])
    assert exited.value.code == 2
    assert "--lisen" in capsys.readouterr().err


def test_settings_cannot_be_changed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="frozen"):
        settings_for(tmp_path).max_streams = 3


@pytest.mark.parametrize("variable", ["LAVANT_TOKEN_KEYS", "LAVANT_HTTP_ORIGINS"])
def test_deep_json_in_the_environment_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], variable: str
) -> None:
    monkeypatch.setenv(variable, "[" * 100_000)
    assert "lavant: " in complaint(capsys)


def test_a_deep_file_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "lavant.toml").write_text(f"http_origins = {'[' * 100_000}")
    assert "lavant.toml cannot be read as TOML: it is nested too deeply" in complaint(capsys, "--config", "lavant.toml")


def test_secrets_are_read_from_files(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(f"# the first one signs\nnew = {KEY}\n\nold={KEY[::-1]}\n")
    (tmp_path / "store").write_text("nats://lavant:hunter2@127.0.0.1:4222\n")
    settings = read("--token-keys-file", "keys", "--store-file", "store")
    assert list(secrets(settings).items()) == [("new", KEY), ("old", KEY[::-1])]
    assert settings.store == "nats://lavant:hunter2@127.0.0.1:4222"


@pytest.mark.parametrize(
    ("content", "flags", "expected"),
    [
        (b"0123456789abcdef0123456789abcdef", (), "token_keys_file: keys must have lines ID=KEY"),
        (b"a=00ff", (), "token_keys: key 'a' must be at least 32 hexadecimal digits"),
        (b"\xff\xfe", (), "token_keys_file: keys is not a text file"),
        (f"a={KEY}".encode(), ("--token-keys", f"b={KEY}"), "token_keys and token_keys_file are both set"),
    ],
)
def test_a_bad_file_of_keys_is_named_in_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, content: bytes, flags: tuple[str, ...], expected: str
) -> None:
    (tmp_path / "keys").write_bytes(content)
    line = complaint(capsys, "--token-keys-file", "keys", *flags)
    assert expected in line
    assert KEY not in line


def test_secrets_are_in_no_representation(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = read("--token-keys", f"a={KEY}", "--store", "nats://lavant:hunter2@127.0.0.1:4222")
    assert KEY not in f"{settings!r} {settings.model_dump_json()}"
    assert "hunter2" not in repr(settings)
    monkeypatch.setenv("LAVANT_TOKEN_KEYS", f'{{"a": "{KEY}x"}}')
    with pytest.raises(ValidationError) as caught:
        read()
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--token-keys", f"a={KEY}"], ["token_keys"]),
        ([f"--token-keys=a={KEY}"], ["token_keys"]),
        (["--store", "nats://lavant:hunter2@127.0.0.1:4222"], ["store"]),
        (["--store", "nats://127.0.0.1:4222", "--token-keys-file", "keys"], []),
    ],
)
def test_secrets_among_arguments_are_noticed(arguments: list[str], expected: list[str]) -> None:
    assert list(secrets_in(arguments)) == expected


JWT = ("--auth", "jwt", "--jwt-issuer", "https://login.example.org/", "--jwt-audience", "lavant")


def test_jwts_are_mapped_by_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAVANT_JWT_SCOPES", '{"viewer": ["runs:read"]}')
    settings = read(*JWT, "--jwt-keys", "keys.json", "--jwt-tenants", "Acme GmbH=acme", "--jwt-algorithm", "ES256")
    assert (settings.jwt_tenants, settings.jwt_scopes) == ({"Acme GmbH": "acme"}, {"viewer": ["runs:read"]})
    assert (settings.jwt_tenant_claim, settings.jwt_scopes_claim) == ("tenant", "scope")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ((), "auth = jwt needs jwt_keys as well"),
        (("--jwt-keys", "http://login.example.org/keys"), "jwt_keys: must be a file or an https:// address"),
        (("--jwt-keys", "k", "--jwt-algorithm", "HS256"), "jwt_algorithm: "),
        (("--jwt-keys", "k", "--jwt-tenants", "a=lavant"), "'lavant' must be 1 to 64 characters"),
        (("--jwt-keys", "k", "--jwt-scopes", '{"a": ["runs:raed"]}'), "'runs:raed' is no scope"),
        (("--jwt-keys", "k", "--jwt-limits", '{"a": {"calls": 0}}'), "jwt_limits.a.calls: Input should be greater"),
        (("--jwt-keys", "k", "--jwt-limits", '{"a": {"open_runs": 1}}'), "jwt_limits.a.open_runs: "),
    ],
)
def test_bad_settings_of_jwts_are_named(
    capsys: pytest.CaptureFixture[str], flags: tuple[str, ...], expected: str
) -> None:
    assert expected in complaint(capsys, *JWT, *flags)
