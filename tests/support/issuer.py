"""An issuer of JWTs with real keys, and the HTTP server that has its key set."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import get_default_algorithms

from support.leaks import secret

ISSUER = "https://login.example.org/"
AUDIENCE = "lavant"


def new_key(algorithm: str = "ES256", bits: int = 2_048) -> Any:
    """Make a private key for an algorithm."""
    if algorithm[:2] in ("RS", "PS"):
        return rsa.generate_private_key(65537, bits)
    if algorithm == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    return ec.generate_private_key(ec.SECP384R1() if algorithm == "ES384" else ec.SECP256R1())


class Issuer:
    """Signs tokens with keys of one algorithm, of which some are published. Times come from `now`, in seconds."""

    def __init__(self, now: int, algorithm: str = "ES256") -> None:
        self.now = now
        self.algorithm = algorithm
        self.keys = {"first": new_key(algorithm)}
        self.published: list[dict[str, Any]] = []
        self.publish("first")
        self.fetches = 0
        self.status = 200
        self.body: bytes | None = None
        self.answering = threading.Event()
        self.answering.set()
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.fetches += 1
                issuer.answering.wait(20)
                body = issuer.key_set if issuer.body is None else issuer.body
                self.send_response(issuer.status)
                self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/keys.json"

    @property
    def key_set(self) -> bytes:
        return json.dumps({"keys": self.published}).encode()

    def publish(self, *key_ids: str) -> None:
        """Publish the public parts of these keys, and of no others; new ones are made."""
        for key_id in key_ids:
            self.keys.setdefault(key_id, new_key(self.algorithm))
        self.published = [public_jwk(self.keys[key_id], self.algorithm, kid=key_id) for key_id in key_ids]

    def claims(self, **changes: Any) -> dict[str, Any]:
        """The claims of a good token, with changes; None removes one."""
        good = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": "ada",
            "exp": self.now + 600,
            "tenant": "acme",
            "scope": "runs:read",
        }
        return {name: value for name, value in {**good, **changes}.items() if value is not None}

    def token(self, *, key: str = "first", headers: dict[str, Any] | None = None, **changes: Any) -> str:
        """A token that is signed with a key, with changes of a good one's claims."""
        return self.sign(json.dumps(self.claims(**changes)).encode(), key=key, headers=headers)

    def sign(self, payload: bytes, *, key: str = "first", headers: dict[str, Any] | None = None) -> str:
        """A token of any payload."""
        named = {"kid": key, **(headers or {})}
        token = jwt.PyJWS().encode(
            payload,
            self.keys[key],
            algorithm=self.algorithm,
            headers={name: value for name, value in named.items() if value is not None},
        )
        secret(token.rpartition(".")[2])
        return token

    def close(self) -> None:
        self.answering.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def public_jwk(private: Any, algorithm: str, **fields: Any) -> dict[str, Any]:
    """The JSON Web Key of a private key's public part."""
    written: Any = get_default_algorithms()[algorithm].to_jwk(private.public_key())
    return {**json.loads(written), "alg": algorithm, "use": "sig", **fields}
