"""Peers that vanish without a word: their connections are closed, and what they held is free again."""

import socket
from pathlib import Path
from random import Random
from typing import cast

from lavant.client._wire.target import CHANNEL_OPTIONS
from lavant.server.app.services import server_options
from lavant.server.http.listener import Listener
from lavant.v1.event_service_pb2 import StreamEventsResponse
from support.calls import create, publish, publishing, until
from support.events import run_started
from support.proxy import Proxy
from support.server import connected, serving, settings_for
from support.streams import stream

PING = "grpc.http2.ping_timeout_ms"


async def test_a_reader_and_a_producer_that_vanish_are_noticed(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, ping_interval=1, ping_timeout=1) as server,
        Proxy(server.target, Random(1)) as proxy,
        connected(proxy.target) as far,
        publishing(far) as producing,
    ):
        await create(server.stubs)
        await publish(producing, [run_started()])
        reading = stream(far, heartbeat_interval={"seconds": 1})
        await reading.read()
        assert len(server.app.calls) == 2
        proxy.black_hole()
        await until(lambda: len(server.app.calls) == 0)
        rival = stream(server.stubs, session_id="rival")
        assert cast("StreamEventsResponse", await rival.read()).HasField("opened")
        rival.cancel()
        reading.cancel()


def test_by_default_a_silent_peer_is_noticed_within_40_seconds(tmp_path: Path) -> None:
    """A ping is answered in time or the connection is closed; gRPC itself would wait for 60 s."""
    for options in (dict(server_options(settings_for(tmp_path))), cast("dict[str, int]", dict(CHANNEL_OPTIONS))):
        assert options["grpc.keepalive_time_ms"] + options[PING] <= 40_000
        assert options["grpc.keepalive_timeout_ms"] <= options[PING]


async def test_http_connections_are_probed_by_tcp(tmp_path: Path) -> None:
    async def nothing(*_: object) -> None:
        """Answer nothing."""

    settings = settings_for(tmp_path)
    listener = Listener(
        nothing, max_connections=1, ping_interval=settings.ping_interval, ping_timeout=settings.ping_timeout
    )
    listener.bind("127.0.0.1", 0)
    bound = listener._socket
    assert bound is not None
    assert bound.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    idle, interval, probes = (
        bound.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))
        for name in ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT")
    )
    assert idle + interval * probes <= 40
    assert bound.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) <= 40_000
    bound.close()
