"""CAs of client certificates, and what becomes of certificates whose CA is taken out."""

import ssl
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING

import structlog

from lavant.server.auth.principal import unauthenticated

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

CERTIFICATE: ContextVar[bytes] = ContextVar("CERTIFICATE", default=b"")  # of the present call's peer, in DER
_MAX_CACHED = 10_000  # certificates

_log = structlog.get_logger(__name__)


class ClientAuthorities:
    """The CAs that certificates of clients must be from, as their file changes.

    Handshakes check whole chains with the present CAs. What is checked here is the certificate of a connection that is
    older: whether a CA that was taken out issued it, and none of those that are left. An intermediate CA counts as one
    if it is in the file; who issued a certificate of another one is not known, and it stays valid.
    `on_removed` is called with the check after CAs were taken out.
    """

    def __init__(self, pem: bytes, on_removed: Callable[[Callable[[bytes], None]], None]) -> None:
        self._pem = pem
        self._on_removed = on_removed
        self._present: list[Certificate] = []  # read from the file once any were taken out
        self._removed: list[Certificate] = []
        self._allowed: dict[bytes, bool] = {}  # by certificate

    def replace(self, pem: bytes) -> None:
        """Use the CAs of another file from now on."""
        from cryptography.x509 import load_pem_x509_certificates  # takes 50 ms

        before, self._pem = self._pem, pem
        try:
            earlier, self._present = load_pem_x509_certificates(before), load_pem_x509_certificates(pem)
        except ValueError as error:  # of a form that OpenSSL reads and this does not
            _log.error("client_ca_not_compared", error=str(error))
            return
        removed = [ca for ca in (*self._removed, *earlier) if ca not in self._present]
        self._removed = list(dict.fromkeys(removed))
        self._allowed.clear()
        if self._removed:
            self._on_removed(self.check)

    def check(self, certificate: bytes) -> None:
        """Raise UNAUTHENTICATED if a certificate was issued by a CA that is taken out."""
        if not self._removed or not certificate:
            return
        allowed = self._allowed.get(certificate)
        if allowed is None:
            if len(self._allowed) >= _MAX_CACHED:
                self._allowed.clear()
            allowed = self._allowed[certificate] = self._allows(certificate)
        if not allowed:
            raise unauthenticated("the CA of the client certificate is not accepted any more; use another certificate")

    def _allows(self, certificate: bytes) -> bool:
        from cryptography.x509 import load_der_x509_certificate

        found = load_der_x509_certificate(certificate)
        return not _is_from(found, self._removed) or _is_from(found, self._present)


def der_of_grpc_peer(auth_context: Mapping[str, Iterable[bytes]]) -> bytes:
    """Return the certificate of a gRPC peer, in DER; empty if it has none."""
    for pem in auth_context.get("x509_pem_cert", ()):
        return ssl.PEM_cert_to_DER_cert(pem.decode())
    return b""


def _is_from(certificate: "Certificate", authorities: "list[Certificate]") -> bool:
    """Return whether one of some CAs issued a certificate."""
    from cryptography.exceptions import InvalidSignature

    for authority in authorities:
        if authority.subject == certificate.issuer:
            try:
                certificate.verify_directly_issued_by(authority)
            except (InvalidSignature, ValueError, TypeError):  # another CA of the same name
                continue
            return True
    return False
