"""Where the server is, and how the channel to it is set up."""

import ipaddress
import json
import os
from collections.abc import Sequence

DEFAULT_TARGET = "localhost:7447"
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
    # Every channel is a connection of its own: a server bounds the calls of each.
    ("grpc.use_local_subchannel_pool", 1),
)
_BALANCED = json.dumps({"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": ""}})


def resolve_target(target: str | Sequence[str] | None) -> str:
    """Return the one name that gRPC dials: the given one, LAVANT_TARGET, or the default.

    Several addresses must be IP addresses with ports, all of version 4 or all of version 6; for names,
    give the one DNS name that has them all, as `dns:///name:port`. Raises ValueError otherwise.
    """
    chosen = target or os.environ.get(TARGET_VARIABLE) or DEFAULT_TARGET
    addresses = chosen.split(",") if isinstance(chosen, str) else list(chosen)
    if len(addresses) == 1:
        return addresses[0]
    return f"ipv{_common_version(addresses)}:{','.join(addresses)}"


def channel_options(target: str, more: Sequence[ChannelOption]) -> list[ChannelOption]:
    """Return the options for a target: those given come last, and win.

    Where a target may have several addresses, calls go to all that report to be healthy, in turn.
    """
    balanced = target.startswith("dns:") or "," in target
    service_config: list[ChannelOption] = [("grpc.service_config", _BALANCED)] if balanced else []
    return [*CHANNEL_OPTIONS, *service_config, *more]


def _common_version(addresses: Sequence[str]) -> int:
    versions = {ipaddress.ip_address(address.rpartition(":")[0].strip("[]")).version for address in addresses}
    if len(versions) != 1:
        raise ValueError("addresses must be all of IPv4 or all of IPv6")
    return versions.pop()
