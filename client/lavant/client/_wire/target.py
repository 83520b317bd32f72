"""Address of the server, and options of the channel to it."""

import ipaddress
import json
import os
import re
from collections.abc import Sequence

DEFAULT_PORT = 7447
DEFAULT_TARGET = f"localhost:{DEFAULT_PORT}"
TARGET_VARIABLE = "LAVANT_TARGET"

ChannelOption = tuple[str, int | str]

# The small look-ahead keeps what a slow reader has not read at the server, not in this process.
# Reconnects begin fast and stay frequent: a restarting server is back within seconds.
CHANNEL_OPTIONS: tuple[ChannelOption, ...] = (
    ("grpc.http2.lookahead_bytes", 65_536),
    ("grpc.http2.bdp_probe", 0),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),  # the one above is without effect before this one, 60 s by default
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.max_receive_message_length", 8 << 20),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 3_000),
    ("grpc.enable_retries", 0),
    # Servers are internal services; a proxy of the environment, meant for the web, would receive what is sent to them.
    ("grpc.enable_http_proxy", 0),
    # Every channel is a connection of its own: a server bounds the calls of each.
    ("grpc.use_local_subchannel_pool", 1),
)
_BALANCED = json.dumps({"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": ""}})

_PORTS = 1 << 16
# Schemes with two slashes are gRPC's own if a third one follows, as in dns:///name and unix:///path.
_URL = re.compile(r"(?!(?:dns|unix|xds)://)[A-Za-z][A-Za-z0-9+.-]*://(?P<host>[^/]*)")
_SCHEME = re.compile(r"(?P<head>(?P<name>dns|ipv4|ipv6|unix|unix-abstract|vsock|xds):(?://[^/]*/)?)")
_PLACE = re.compile(r"(?:\[[^\]]+\]|[^\s:/\[\]]+)(?::(?P<port>[0-9]{1,5}))?")


def resolve_target(target: str | Sequence[str] | None) -> str:
    """Return the one name that gRPC connects to: the given one, LAVANT_TARGET, or the default.

    The default port is 7447. Several addresses must be IP addresses, all of version 4 or all of version 6; for names,
    pass one DNS name that has all addresses, as `dns:///name:port`. Raises ValueError for text that is no address, such
    as a URL, and TypeError for other types.
    """
    chosen = target or os.environ.get(TARGET_VARIABLE) or DEFAULT_TARGET
    addresses = chosen.split(",") if isinstance(chosen, str) else _texts(chosen)
    if len(addresses) == 1:
        return _with_port(addresses[0].strip())
    whole = [_with_port(address.strip()) for address in addresses]
    return f"ipv{_common_version(whole)}:{','.join(whole)}"


def channel_options(target: str, more: Sequence[ChannelOption]) -> list[ChannelOption]:
    """Return the options of a channel. `more` come last and override the others.

    If a target may have several addresses, calls go to all healthy ones in turn.
    """
    balanced = target.startswith("dns:") or "," in target
    service_config: list[ChannelOption] = [("grpc.service_config", _BALANCED)] if balanced else []
    return [*CHANNEL_OPTIONS, *service_config, *more]


def _texts(target: object) -> list[str]:
    addresses = list(target) if isinstance(target, Sequence) else []
    if not addresses or not all(isinstance(address, str) for address in addresses):
        raise TypeError(f"target must be 'host:port' or several of these, not {target!r}")
    return addresses


def _with_port(address: str) -> str:
    """Return an address with a port. gRPC's own schemes are not changed."""
    if url := _URL.match(address):
        raise ValueError(
            f"target must be host:port, not the URL {address!r}: use {url['host'] or DEFAULT_TARGET!r}, "
            "with the port of gRPC, which `lavant serve` prints as grpc="
        )
    scheme = _SCHEME.match(address)
    if scheme and scheme["name"] not in ("dns", "ipv4", "ipv6"):
        return address
    head, place = (scheme["head"], address[scheme.end() :]) if scheme else ("", address)
    return head + ",".join(_place_with_port(each, address) for each in place.split(","))


def _place_with_port(place: str, given: str) -> str:
    if _is_ipv6(place):  # Only in brackets could it have a port.
        return f"[{place}]:{DEFAULT_PORT}"
    found = _PLACE.fullmatch(place)
    if found is None or not 0 < int(found["port"] or DEFAULT_PORT) < _PORTS:
        raise ValueError(f"target must be host:port, with a port from 1 to 65535, not {given!r}")
    return place if found["port"] else f"{place}:{DEFAULT_PORT}"


def _is_ipv6(place: str) -> bool:
    try:
        return ipaddress.ip_address(place).version == 6
    except ValueError:
        return False


def _common_version(addresses: Sequence[str]) -> int:
    try:
        versions = {ipaddress.ip_address(address.rpartition(":")[0].strip("[]")).version for address in addresses}
    except ValueError as error:
        raise ValueError(f"several targets must be IP addresses: {error}; for a name, use dns:///name:port") from None
    if len(versions) != 1:
        raise ValueError("addresses must be all of IPv4 or all of IPv6")
    return versions.pop()
