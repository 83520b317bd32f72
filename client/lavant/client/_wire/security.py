"""Security of a client's connections: TLS, and the places to which credentials may be sent."""

import base64
import binascii
import ipaddress
import json
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import grpc

API_KEY_VARIABLE, INSECURE_VARIABLE = "LAVANT_API_KEY", "LAVANT_INSECURE"
_YES, _NO = ("1", "true", "yes", "on"), ("", "0", "false", "no", "off")
_ADDRESSES = re.compile(r"(?:dns|ipv4|ipv6):(?://[^/]*/)?")
_UNIX = re.compile(r"unix(?:-abstract)?:")
_TOKEN_PARTS = 3  # of a JWT

StrPath: TypeAlias = str | os.PathLike[str]


class Secret(str):
    """Text whose repr hides it: tracebacks and debuggers show reprs."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


@dataclass(frozen=True, slots=True, kw_only=True)
class TLS:
    """TLS of a client, by PEM files.

    `ca` has the certificates of the CAs that the server's certificate must come from; default: the public ones that
    gRPC brings. `cert` and `key` are the certificate chain of the client and its key without a passphrase, for servers
    that require one. `server_name` is the name that the server's certificate must have; default: the host of the
    target. The files are read again for each new connection. Raises ValueError for one of `cert` and `key` alone.

    Example:
        tls = TLS(ca="ca.pem", cert="agent.pem", key="agent.key")
        assert tls.server_name is None
    """

    ca: StrPath | None = None
    cert: StrPath | None = None
    key: StrPath | None = None
    server_name: str | None = None

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            raise ValueError("a client certificate needs its key: pass both cert and key, or neither")


class ChannelSecurity:
    """Credentials of the channels of a client, from files that are read for each channel.

    Files that cannot be read any more leave the last good ones in place. Raises ValueError if they are bad at first.
    """

    def __init__(self, tls: TLS | None) -> None:
        self._tls = tls
        self._last = None if tls is None else _load(tls)

    @property
    def is_encrypted(self) -> bool:
        """Whether the channels use TLS."""
        return self._tls is not None

    def options(self) -> list[tuple[str, int | str]]:
        """Return the options of a channel for these credentials."""
        name = None if self._tls is None else self._tls.server_name
        return [("grpc.ssl_target_name_override", name)] if name else []

    def channel_credentials(self) -> grpc.ChannelCredentials | None:
        """Return the credentials of a new channel; None without TLS."""
        if self._tls is not None:
            with suppress(ValueError):
                self._last = _load(self._tls)
        return self._last


def resolve_tls(tls: bool | StrPath | TLS | None, environment: Mapping[str, str] = os.environ) -> TLS | None:
    """Return the TLS settings of a client; None: no TLS.

    With None, the environment decides, and with True, it names the files: LAVANT_TLS, LAVANT_TLS_CA, LAVANT_TLS_CERT
    and LAVANT_TLS_KEY. Raises TypeError or ValueError for other values.
    """
    if isinstance(tls, TLS):
        return tls
    if tls is False:
        return None
    if tls is None or tls is True:
        files = {name: environment.get(f"LAVANT_TLS_{name.upper()}") or None for name in ("ca", "cert", "key")}
        wanted = tls or is_set("LAVANT_TLS", environment) or any(files.values())
        return TLS(**files) if wanted else None
    if isinstance(tls, str | os.PathLike):
        return TLS(ca=tls)
    raise TypeError(f"tls must be True, the path of a CA file, or TLS(...), not {type(tls).__name__}")


def is_set(variable: str, environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether a variable of the environment says yes. Raises ValueError if it says neither yes nor no."""
    value = environment.get(variable, "").strip().lower()
    if value not in (*_YES, *_NO):
        raise ValueError(f"{variable} must be true or false, not {value!r}")
    return value in _YES


def check_private(target: str, names: Sequence[str], *, is_encrypted: bool, insecure: bool) -> None:
    """Raise ValueError if credentials, such as `api_key`, would be sent in plain text to another machine."""
    if names and not is_encrypted and not insecure and not is_loopback(target):
        raise ValueError(
            f"{' and '.join(names)} would be sent to {target} in plain text: pass tls=True or tls=PATH of a CA file "
            "(LAVANT_TLS_CA), or insecure=True (LAVANT_INSECURE) if nobody else can read the network"
        )


def is_loopback(target: str) -> bool:
    """Return whether all addresses of a resolved target are on this machine."""
    if _UNIX.match(target):
        return True
    places = _ADDRESSES.sub("", target, count=1).split(",")
    return all(_is_loopback(place.rpartition(":")[0].strip("[]")) for place in places)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def expiry_of(token: str) -> float | None:
    """Return when a JWT expires, in seconds since 1970; None for other tokens. The signature is not checked."""
    parts = token.split(".")
    if len(parts) != _TOKEN_PARTS:
        return None
    try:
        claims: Any = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (binascii.Error, ValueError):
        return None
    expiry = claims.get("exp") if isinstance(claims, dict) else None
    return float(expiry) if isinstance(expiry, int | float) and not isinstance(expiry, bool) else None


def _load(tls: TLS) -> grpc.ChannelCredentials:
    import ssl  # few clients need it

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ca, cert, key = (None if path is None else _read(name, path) for name, path in _files(tls))
    try:
        if tls.ca is not None and ca is not None:
            context.load_verify_locations(cadata=ca.decode("ascii", "ignore"))
    except ssl.SSLError:
        raise ValueError(f"tls: {os.fspath(tls.ca or '')} has no certificates in PEM form") from None
    try:
        if tls.cert is not None and tls.key is not None:
            context.load_cert_chain(tls.cert, tls.key, password=_refuse_passphrase)
    except (ssl.SSLError, OSError) as error:
        reason = getattr(error, "reason", None) or error
        raise ValueError(f"tls: {tls.cert} with the key {tls.key} cannot be used: {reason}") from None
    return grpc.ssl_channel_credentials(ca, key, cert)


def _files(tls: TLS) -> tuple[tuple[str, StrPath | None], ...]:
    return ("ca", tls.ca), ("cert", tls.cert), ("key", tls.key)


def _read(name: str, path: StrPath) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"tls: the {name} file {os.fspath(path)} cannot be read: {error.strerror}") from None


def _refuse_passphrase() -> str:
    raise ValueError("tls: the key is encrypted; pass one without a passphrase")
