"""Certificates of a CA of the test's own, in files."""

import os
import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

EXPIRED: dict[str, Any] = {
    "not_before": datetime(2020, 1, 1, tzinfo=UTC),
    "not_after": datetime(2021, 1, 1, tzinfo=UTC),
}


class Pair(NamedTuple):
    """A certificate chain and its key, as files."""

    cert: Path
    key: Path


class Authority:
    """A CA, with its certificate in a file."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._authority = trustme.CA()
        self.pem = self._authority.cert_pem.bytes()
        self.path = folder / f"{name}.pem"
        self.path.write_bytes(self.pem)

    def issue(self, name: str, *identities: str, **validity: Any) -> Pair:
        """Issue a certificate for host names, addresses or URIs, and replace the pair of files of this name."""
        issued = self._authority.issue_cert(*identities, **validity)
        pair = Pair(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        chain = b"".join(part.bytes() for part in issued.cert_chain_pems)
        for path, content in zip(pair, (chain, issued.private_key_pem.bytes()), strict=True):
            _replace(path, content)
        return pair

    def issue_for_uri(self, name: str, uri: str) -> Pair:
        """Issue a certificate of a client for a URI, such as a SPIFFE ID, which trustme itself cannot."""
        key = ec.generate_private_key(ec.SECP256R1())
        ca = x509.load_pem_x509_certificate(self.pem)
        ca_key = load_pem_private_key(self._authority.private_key_pem.bytes(), None)
        assert isinstance(ca_key, ec.EllipticCurvePrivateKey)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(ca.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(ca.not_valid_before_utc)
            .not_valid_after(ca.not_valid_after_utc)
            .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)]), critical=True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
            .sign(ca_key, hashes.SHA256())
        )
        pair = Pair(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        _replace(pair.cert, certificate.public_bytes(Encoding.PEM))
        _replace(pair.key, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return pair

    def server(self, **validity: Any) -> Pair:
        """Issue a certificate for loopback."""
        return self.issue("server", "localhost", "127.0.0.1", **validity)

    def channel_credentials(self, client: Pair | None = None) -> grpc.ChannelCredentials:
        """Return credentials that trust this CA, with a client's certificate."""
        key, cert = (None, None) if client is None else (client.key.read_bytes(), client.cert.read_bytes())
        return grpc.ssl_channel_credentials(self.pem, key, cert)

    def context(self, client: Pair | None = None) -> ssl.SSLContext:
        """Return a context that trusts this CA, with a client's certificate."""
        context = ssl.create_default_context(cafile=self.path)
        if client is not None:
            context.load_cert_chain(client.cert, client.key)
        return context


def tls_settings(pair: Pair, client_ca: Authority | None = None) -> dict[str, Any]:
    """The settings of a server that uses a certificate, and requires those of clients of a CA."""
    return {"tls_cert": pair.cert, "tls_key": pair.key, "tls_client_ca": client_ca and client_ca.path}


def encrypt(key: Path) -> None:
    """Protect a key with a passphrase."""
    loaded = load_pem_private_key(key.read_bytes(), None)
    encryption = BestAvailableEncryption(b"passphrase")
    key.write_bytes(loaded.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))


def _replace(path: Path, content: bytes) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_bytes(content)
    os.replace(fresh, path)  # noqa: PTH105
