"""Access to NATS: who the server is there, and which servers of NATS it trusts."""

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_CREDENTIALS = b"-----BEGIN NATS USER JWT-----"
_SEED = b"SU"


@dataclass(frozen=True, slots=True)
class Access:
    """Credentials for NATS, and the files of TLS, which are read with each new connection.

    With `ca`, the connection uses TLS or fails. `cert` and `key` are a client certificate. `credentials` is a file with
    a user JWT and its seed (.creds), or with the seed of an NKey alone.
    """

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    credentials: Path | None = None

    def options(self) -> dict[str, Any]:
        """Return options of the client of NATS. Raises ValueError that names the setting with an unusable file."""
        options: dict[str, Any] = {} if self.ca is None else {"tls": self._context(self.ca)}
        if self.user is not None:
            options |= {"user": self.user, "password": self.password or ""}
        if self.credentials is not None:
            kind = _kind_of(self.credentials)
            options[kind] = str(self.credentials)
        return options

    def _context(self, ca: Path) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=ca)
        except (OSError, ssl.SSLError) as error:
            raise ValueError(f"nats_ca: {ca} cannot be used: {error.strerror or error}") from None
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.cert is not None:
            try:
                context.load_cert_chain(self.cert, self.key, password=_refuse_passphrase)
            except (OSError, ssl.SSLError) as error:
                raise ValueError(
                    f"nats_cert: {self.cert} and {self.key} cannot be used: {error.strerror or error}"
                ) from None
        return context


def _refuse_passphrase() -> str:
    raise ValueError("nats_key: the key is encrypted; use one without a passphrase, readable by the server alone")


def _kind_of(path: Path) -> str:
    """Return the option of the client for a file of credentials."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"nats_credentials: {path} cannot be read: {error.strerror}") from None
    if _CREDENTIALS in content:
        return "user_credentials"
    if content.startswith(_SEED):
        return "nkeys_seed"
    raise ValueError(f"nats_credentials: {path} has neither a user JWT of NATS nor the seed of a user")
