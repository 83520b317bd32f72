"""What a failed connection means, in words that say what to do. Pure."""

import re
from urllib.parse import unquote

import grpc

# How gRPC's core says what it could not connect to: "ipv4:127.0.0.1:7447: Failed to connect to ...".
_ADDRESS = r"(?P<address>\[[^\]]*\]:\d+|[^\s:]+:\d+|/[^\s:]+)"
_CONNECTING = re.compile(rf"(?:ipv[46]:|unix:){_ADDRESS}: (?P<cause>.*)", re.DOTALL)
_RESOLVING = re.compile(r"errors? resolving (?P<name>[^\s\[]+?):? ?\[", re.DOTALL)
_OTHER_PROTOCOL = ("Failed parsing HTTP/2", "http1.x server", "Expected SETTINGS", "Trying to connect an http1")
_NO_TLS = ("WRONG_VERSION_NUMBER", "tls", "SSL", "Ssl", "handshake")
_NOT_GRPC = ("HTTP status", "http2 header with status", "content-type", "Received http2")
_ANOTHER = "name another with target= or LAVANT_TARGET"


def explain(code: grpc.StatusCode, details: str) -> str:
    """Return gRPC's own text, where no server spoke, in words for people; other texts as they are."""
    if code is grpc.StatusCode.UNAVAILABLE and (found := _unreached(unquote(details))):
        return found
    if any(text in details for text in _NOT_GRPC) and code is not grpc.StatusCode.INTERNAL:
        return f"what listens there speaks HTTP, but not gRPC: give the address of lavant's gRPC port ({details})"
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return f"the server does not know this call: it is not lavant, or an older release ({details})"
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return "no answer came in time: the server is overloaded, or what listens there is not lavant"
    return details


def _unreached(details: str) -> str | None:
    if found := _RESOLVING.search(details):
        return f"the host of {found['name']!r} cannot be found: check the name, or {_ANOTHER}"
    found = _CONNECTING.search(details)
    if found is None:
        return None
    address, cause = found["address"], found["cause"].strip()
    if any(text in cause for text in _OTHER_PROTOCOL):
        return (
            f"what listens at {address} does not speak gRPC: give the address of lavant's gRPC port, "
            "which `lavant serve` prints as grpc=; its HTTP port is another"
        )
    if any(text in cause for text in _NO_TLS):
        return f"no secure connection to {address}: {cause}; `credentials` must fit how the server is set up"
    reason = cause.removeprefix("Failed to connect to remote host: ").partition(" (")[0]
    return f"no server answers at {address}: {reason}; start one with `lavant serve`, or {_ANOTHER}"
