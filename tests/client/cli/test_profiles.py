"""Profiles, and the options of a connection."""

from pathlib import Path
from typing import Any

import pytest
import typer

from client.cli.conftest import Lavant
from lavant.client import TLS
from lavant.client.cli.profiles import Access, config_path, read_profile
from support.certificates import Authority, tls_settings
from support.command import run_command
from support.server import serving

KEY = "lvk_abc_secret"


def config(folder: Path, text: str, mode: int = 0o600) -> Path:
    """Write the file of profiles below a folder that XDG_CONFIG_HOME names."""
    path = folder / "lavant" / "config.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def test_the_file_is_where_the_environment_says() -> None:
    assert config_path({"XDG_CONFIG_HOME": "/etc/xdg"}) == Path("/etc/xdg/lavant/config.toml")
    assert config_path({}) == Path.home() / ".config/lavant/config.toml"


def test_a_profile_is_chosen_by_name_or_is_the_default(tmp_path: Path) -> None:
    path = config(
        tmp_path,
        f'[profiles.default]\ntarget = "a:1"\n[profiles.prod]\ntarget = "b:1"\napi_key = "{KEY}"\ntls_ca = "ca.pem"\n',
    )
    assert read_profile(None, path) == Access(target="a:1")
    ca = str(path.parent / "ca.pem")
    assert read_profile("prod", path) == Access(target="b:1", api_key=KEY, tls_ca=ca)
    assert read_profile(None, tmp_path / "missing.toml") == Access()
    with pytest.raises(typer.BadParameter, match=r"no profile 'other' in .* it has: default, prod"):
        read_profile("other", path)
    with pytest.raises(typer.BadParameter, match="does not exist"):
        read_profile("other", tmp_path / "missing.toml")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_file_with_a_key_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = config(tmp_path, f'[profiles.default]\ntarget = "a:1"\n[profiles.prod]\napi_key = "{KEY}"\n', mode)
    with pytest.raises(typer.BadParameter, match=f"chmod 600 {path}") as refused:
        read_profile(None, path)
    assert KEY not in str(refused.value)
    config(tmp_path, '[profiles.default]\ntarget = "a:1"\n', mode)
    assert read_profile(None, path).target == "a:1"


@pytest.mark.parametrize(
    "text",
    [
        "target = 'a:1'",
        "[profiles]\nprod = 1",
        "[profiles.default]\ntargt = 'a'",
        "[profiles.default]\ntls = 'yes'",
        "[",
    ],
)
def test_a_file_of_another_form_is_refused(tmp_path: Path, text: str) -> None:
    path = config(tmp_path, text)
    with pytest.raises(typer.BadParameter, match=str(path)):
        read_profile("prod" if "prod" in text else None, path)


def test_given_values_come_before_those_of_a_profile() -> None:
    profile = Access(target="a:1", api_key=KEY, tls=True, insecure=True)
    given = Access(target="b:1", insecure=False)
    assert given.or_else(profile) == Access(target="b:1", api_key=KEY, tls=True, insecure=False)
    assert Access(tls_ca="ca.pem").arguments()["tls"] == TLS(ca="ca.pem")
    assert KEY not in repr(profile.arguments())


async def test_commands_use_options_variables_and_profiles(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "tls")
    client = authority.issue("client", "ops.example.org")
    text = f'[profiles.local]\ntls_ca = "{authority.path}"\ntls_cert = "{client.cert}"\ntls_key = "{client.key}"\n'
    home = str(config(tmp_path, text).parent.parent)
    files = {"ca": authority.path, "cert": client.cert, "key": client.key}
    options = [part for name, path in files.items() for part in (f"--tls-{name}", str(path))]
    variables: Any = {f"LAVANT_TLS_{name.upper()}": str(path) for name, path in files.items()}
    async with serving(tmp_path, **tls_settings(authority.server(), authority)) as server:
        target = server.target
        assert (await run_command("runs", *options, target=target)).status == 0
        assert (await run_command("runs", target=target, variables=variables)).status == 0
        named = {"XDG_CONFIG_HOME": home, "LAVANT_PROFILE": "local"}
        assert (await run_command("runs", target=target, variables=named)).status == 0
        by_flag = await run_command("runs", "--profile", "local", target=target, variables={"XDG_CONFIG_HOME": home})
        assert by_flag.status == 0
        refused = await run_command("runs", "--tls-ca", str(authority.path), target=target)
        assert refused.status == 1
        assert "may require TLS or a client certificate" in refused.err
        assert len(refused.err.splitlines()) == 1


async def test_a_key_is_not_sent_in_plain_text_to_another_machine(lavant: Lavant) -> None:
    ended = await lavant("runs", "--target", "lavant.invalid:1", "--api-key", KEY)
    assert ended.status == 2
    assert "in plain text" in ended.err
    assert KEY not in ended.err + ended.out
