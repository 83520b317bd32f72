"""Profiles: named servers with their credentials, in ~/.config/lavant/config.toml."""

import os
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from lavant.client import TLS
from lavant.client._wire.security import Secret

PROFILE_VARIABLE = "LAVANT_PROFILE"
_DEFAULT = "default"
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_TEXTS = ("target", "api_key", "tls_ca", "tls_cert", "tls_key")
_FLAGS = ("tls", "insecure")


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """A server, and how to reach it, as far as it is given."""

    target: str | None = None
    api_key: str | None = None
    tls: bool | None = None
    tls_ca: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    insecure: bool | None = None

    def or_else(self, profile: "Access") -> "Access":
        """Return this, with values of a profile where it has none."""
        both = ((name, getattr(self, name), getattr(profile, name)) for name in (*_TEXTS, *_FLAGS))
        return Access(**{name: given if given is not None else other for name, given, other in both})

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of a client. Raises ValueError for values that do not fit together."""
        has_files = any((self.tls_ca, self.tls_cert, self.tls_key))
        tls = TLS(ca=self.tls_ca, cert=self.tls_cert, key=self.tls_key) if has_files else self.tls
        key = Secret(self.api_key) if self.api_key else None
        return {"target": self.target, "api_key": key, "tls": tls, "insecure": self.insecure}


def config_path(environment: Mapping[str, str] = os.environ) -> Path:
    """Return where the profiles are: in XDG_CONFIG_HOME, by default ~/.config."""
    home = environment.get("XDG_CONFIG_HOME")
    return (Path(home) if home else Path.home() / ".config") / "lavant" / "config.toml"


def read_profile(name: str | None, path: Path) -> Access:
    """Return a profile; without a name, the one named "default" if there is one. Raises a usage error.

    A file that holds a key must be readable by its owner alone. Paths in it are relative to its folder.
    """
    try:
        with path.open("rb") as file:
            content = tomllib.load(file)
            mode = os.fstat(file.fileno()).st_mode
    except FileNotFoundError:
        if name is None:
            return Access()
        raise typer.BadParameter(f"there is no profile {name!r}: {path} does not exist") from None
    except (OSError, ValueError) as error:
        raise typer.BadParameter(f"{path} cannot be read as TOML: {error}") from None
    profiles = content.get("profiles", {})
    if set(content) - {"profiles"} or not isinstance(profiles, dict):
        raise typer.BadParameter(f"{path} must have tables [profiles.NAME] only")
    if mode & _OTHERS and any("api_key" in profile for profile in profiles.values() if isinstance(profile, dict)):
        raise typer.BadParameter(f"{path} holds an API key, and others may read it: chmod 600 {path}")
    if name is None and _DEFAULT not in profiles:
        return Access()
    if (name or _DEFAULT) not in profiles:
        known = ", ".join(profiles) or "none"
        raise typer.BadParameter(f"there is no profile {name!r} in {path}; it has: {known}")
    return _parse(profiles[name or _DEFAULT], f"profile {name or _DEFAULT!r} in {path}", path.parent)


def _parse(profile: object, title: str, folder: Path) -> Access:
    values: dict[str, Any] = dict(profile) if isinstance(profile, dict) else {"": None}
    for key, value in values.items():
        if key not in (*_TEXTS, *_FLAGS) or not isinstance(value, bool if key in _FLAGS else str):
            allowed = f"{', '.join(_TEXTS)} (text) and {', '.join(_FLAGS)} (true or false)"
            raise typer.BadParameter(f"{title}: {key or 'it'} is not allowed; a profile has {allowed}")
    for key in ("tls_ca", "tls_cert", "tls_key"):
        if key in values:
            values[key] = str(folder / Path(values[key]).expanduser())
    return Access(**values)
