"""Certificates of the listeners, read from files, and read again when the files change."""

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import grpc
import structlog

from lavant.server.clock import Clock, Periodic
from lavant.server.errors import StartError

_INTERVAL = 2.0  # seconds between two reads of the files
_log = structlog.get_logger(__name__)


class CertificateFiles(NamedTuple):
    """PEM files: the server's certificate chain, its key, and the CAs of clients, which then need certificates."""

    cert: Path
    key: Path
    client_ca: Path | None = None


class _Contents(NamedTuple):
    cert: bytes
    key: bytes
    client_ca: bytes | None


@dataclass(frozen=True, slots=True, eq=False)
class _Loaded:
    """Certificates of new connections: a configuration for gRPC, a context for HTTP."""

    contents: _Contents
    configuration: grpc.ServerCertificateConfiguration
    context: ssl.SSLContext


class Certificates(Periodic):
    """Certificates for gRPC and HTTP; within an `async with` block, new files replace them for new connections.

    Open connections keep theirs. Files that cannot be used leave the last good ones in place, which is logged once.
    Raises StartError if the files cannot be used at first.
    """

    def __init__(self, files: CertificateFiles, clock: Clock) -> None:
        super().__init__(clock, _INTERVAL)
        self._files = files
        self._complaint = ""
        try:
            self._current = _load(files, _read(files))
        except _Unusable as error:
            raise StartError(str(error)) from None
        self._fetched = self._current
        self._on_client_ca: list[Callable[[bytes], None]] = []

    @property
    def client_ca(self) -> bytes | None:
        """The CAs of clients, as PEM."""
        return self._current.contents.client_ca

    def on_client_ca(self, callback: Callable[[bytes], None]) -> None:
        """Call back with the CAs of clients, as PEM, whenever they have changed."""
        self._on_client_ca.append(callback)

    def grpc_credentials(self) -> grpc.ServerCredentials:
        """Return the credentials of a gRPC server: TLS 1.2 or later."""
        return grpc.dynamic_ssl_server_credentials(
            self._current.configuration,
            self._fetch,  # type: ignore[arg-type] # None means unchanged
            require_client_authentication=self._files.client_ca is not None,
        )

    def http_context(self) -> ssl.SSLContext:
        """Return the context of an HTTP/1.1 server: TLS 1.2 or later."""
        # Each handshake continues with the current context: what is loaded into a context cannot be removed from it.
        context = _bare_context(requires_clients=self._files.client_ca is not None)
        context.sni_callback = self._replace_context
        return context

    async def run_once(self) -> None:
        """Read the files again, and use them if they have changed."""
        try:
            contents = await asyncio.to_thread(_read, self._files)
            if contents == self._current.contents:
                self._complaint = ""
                return
            loaded = await asyncio.to_thread(_load, self._files, contents)
        except _Unusable as error:
            if str(error) != self._complaint:
                self._complaint = str(error)
                _log.error("certificate_not_reloaded", error=self._complaint)
            return
        before, self._current, self._complaint = self.client_ca, loaded, ""
        _log.info("certificate_reloaded", cert=str(self._files.cert))
        if self.client_ca is not None and self.client_ca != before:
            for callback in self._on_client_ca:
                callback(self.client_ca)

    def _fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """Return the configuration if it is new. gRPC's threads call this in each handshake."""
        current = self._current
        if current is self._fetched:
            return None
        self._fetched = current
        return current.configuration

    def _replace_context(self, connection: Any, *_: object) -> None:
        """Use the current context for a connection, at the start of its handshake."""
        connection.context = self._current.context


class _Unusable(Exception):
    """The files cannot be used; the text says which one, why, and what to do."""


def _read(files: CertificateFiles) -> _Contents:
    return _Contents(
        _bytes_of("tls_cert", files.cert),
        _bytes_of("tls_key", files.key),
        None if files.client_ca is None else _bytes_of("tls_client_ca", files.client_ca),
    )


def _bytes_of(setting: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _Unusable(f"{setting}: {path} cannot be read: {error.strerror}") from None


def _load(files: CertificateFiles, contents: _Contents) -> _Loaded:
    context = _new_context(files, contents)
    if _read(files) != contents:
        raise _Unusable(f"tls_cert: {files.cert} and its key changed while they were read")
    pair = (contents.key, contents.cert)
    return _Loaded(contents, grpc.ssl_server_certificate_configuration([pair], contents.client_ca), context)


def _new_context(files: CertificateFiles, contents: _Contents) -> ssl.SSLContext:
    context = _bare_context(requires_clients=contents.client_ca is not None)
    try:
        context.load_cert_chain(files.cert, files.key, password=_refuse_passphrase)
    except ssl.SSLError as error:
        raise _Unusable(_explain(files, contents, error)) from None
    except OSError as error:
        raise _Unusable(f"tls_cert: {files.cert} cannot be read: {error.strerror}") from None
    if contents.client_ca is not None:
        _trust(context, files, contents.client_ca)
    return context


def _bare_context(*, requires_clients: bool) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    # A resumed session would skip the check of a client certificate, by a CA that may have been replaced.
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    context.verify_mode = ssl.CERT_REQUIRED if requires_clients else ssl.CERT_NONE
    return context


def _trust(context: ssl.SSLContext, files: CertificateFiles, client_ca: bytes) -> None:
    try:
        context.load_verify_locations(cadata=client_ca.decode("ascii", "ignore"))
    except ssl.SSLError:
        raise _Unusable(f"tls_client_ca: {files.client_ca} has no certificates in PEM form") from None
    if not context.cert_store_stats()["x509_ca"]:
        raise _Unusable(f"tls_client_ca: {files.client_ca} has no certificate of a CA")


def _refuse_passphrase() -> NoReturn:
    raise _Unusable("tls_key: the key is encrypted; use one without a passphrase, readable by the server alone")


def _explain(files: CertificateFiles, contents: _Contents, error: ssl.SSLError) -> str:
    if error.reason == "KEY_VALUES_MISMATCH":
        return f"tls_key: the key in {files.key} does not belong to the certificate in {files.cert}"
    if b"PRIVATE KEY-----" not in contents.key:
        return f"tls_key: {files.key} has no private key in PEM form"
    if b"CERTIFICATE-----" not in contents.cert:
        return f"tls_cert: {files.cert} has no certificate in PEM form"
    return f"tls_cert: {files.cert} with the key {files.key} cannot be used: {error.reason or error}"
