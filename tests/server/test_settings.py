"""Settings: where they come from, which come first, and what is said of bad ones."""

from pathlib import Path

import pytest
from pydantic import ValidationError
from pydantic_settings import SettingsError

from lavant.server import __main__ as command
from lavant.server.settings import Settings
from support.server import settings_for

KEY = "0123456789abcdef" * 2


@pytest.fixture(autouse=True)
def _nothing_is_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("LISTEN", "HTTP", "STORE", "CONFIG", "MAX_STREAMS", "TOKEN_KEYS", "INSECURE"):
        monkeypatch.delenv(f"LAVANT_{name}", raising=False)
    monkeypatch.setenv("LAVANT_CONFIG", "")


def read(*flags: str) -> Settings:
    """Read the settings as the command does."""
    return command._read_settings(list(flags))


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
    assert not settings.reflection
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
    assert read(*flags).token_keys == {"old": KEY}


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
    assert settings.token_keys == {"a": KEY}


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
    "no streams": (("--max-streams", "0"), "max_streams: Input should be greater than or equal to 1"),
    "streams in words": (("--max-streams", "many"), "max_streams: Input should be a valid integer"),
    "no connections": (("--max-connections", "0"), "max_connections: Input should be greater"),
    "short age": (("--max-stream-age", "0.5"), "max_stream_age: Input should be greater"),
    "long age": (("--max-stream-age", "1e9"), "max_stream_age: Input should be less"),
    "no write timeout": (("--write-timeout", "0"), "write_timeout: Input should be greater"),
    "negative drain": (("--drain-timeout", "-1"), "drain_timeout: Input should be greater"),
    "webhooks": (("--webhooks", "https://hooks.example"), "webhooks: "),
    "small tail": (("--tail-bytes", "10"), "tail_bytes: Input should be greater"),
    "short key": (("--token-keys", "a=00ff"), "token_keys: key 'a' must be at least 32 hexadecimal digits"),
    "key that is no number": (("--token-keys", f"a={KEY[:-1]}z"), "token_keys: key 'a' must be at least 32"),
    "long key id": (("--token-keys", f"{'a' * 17}={KEY}"), "token_keys: a key needs an id of 1 to 16"),
    "the store's own key id": (("--token-keys", f"store={KEY}"), "token_keys: a key needs an id of 1 to 16"),
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
        (b'lisen = "127.0.0.1:0"', "lisen: is no setting"),
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
