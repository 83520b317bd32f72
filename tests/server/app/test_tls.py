"""TLS of both listeners: who may connect, and certificates that are replaced while the server runs."""

import asyncio
import ssl
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from lavant.server.app.certificates import CertificateFiles, Certificates
from lavant.server.errors import StartError
from lavant.v1.event_service_pb2 import StreamEventsRequest, StreamEventsResponse
from support.calls import append, create, get
from support.certificates import EXPIRED, Authority, Pair, encrypt, tls_settings
from support.clock import ManualClock
from support.events import a_run_of
from support.server import Server, ServerProcess, connected, serving

LIMIT = 30.0
INTERVAL = 2.0  # seconds between two reads of the files
STREAMS = 200


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """The CA of this test."""
    return Authority(tmp_path / "tls")


async def refusal(target: str, credentials: grpc.ChannelCredentials | None) -> str:
    """Why a call is not made."""
    async with connected(target, credentials) as stubs:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await get(stubs)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    return refused.value.details() or ""


async def handshake(address: str, context: ssl.SSLContext) -> ssl.SSLObject:
    """Complete a handshake with a server, and an exchange after it, and return the connection's session."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port), ssl=context, server_hostname=host)
    try:
        found = writer.get_extra_info("ssl_object")
        assert isinstance(found, ssl.SSLObject)
        if found.selected_alpn_protocol() != "h2":
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        if not await reader.read(1):  # with TLS 1.3, the client learns only now that its certificate is refused
            raise ConnectionResetError("the server closed the connection")
        return found
    finally:
        writer.close()


async def presented(address: str, context: ssl.SSLContext) -> bytes | None:
    """The certificate that a server presents; None if there is no handshake."""
    try:
        return (await handshake(address, context)).getpeercert(binary_form=True)
    except OSError:
        return None


def der(pair: Pair) -> bytes:
    """A certificate as it is sent."""
    return ssl.PEM_cert_to_DER_cert(pair.cert.read_text())


async def test_calls_over_tls_succeed_and_plain_ones_do_not(tmp_path: Path, authority: Authority) -> None:
    credentials = authority.channel_credentials()
    flags = tls_settings(authority.server())
    async with serving(tmp_path, credentials=credentials, http="127.0.0.1:0", **flags) as server:
        await create(server.stubs)
        assert await refusal(server.target, None)
        address = server.app.http_address
        async with httpx.AsyncClient(verify=authority.context()) as client:
            assert (await client.get(f"https://{address}/api/v1/runs/run")).json()["run_id"] == "run"
            with pytest.raises(httpx.TransportError):
                await client.get(f"http://{address}/healthz")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize(("listener", "protocol"), [("grpc", "h2"), ("http", "http/1.1")])
async def test_tls_below_1_2_is_refused(tmp_path: Path, authority: Authority, listener: str, protocol: str) -> None:
    context = authority.context()
    context.set_ciphers("DEFAULT:@SECLEVEL=0")  # OpenSSL itself would not try TLS 1.1
    context.set_alpn_protocols(["http/1.1", "h2"])
    async with serving(tmp_path, http="127.0.0.1:0", **tls_settings(authority.server())) as server:
        address = server.target if listener == "grpc" else server.app.http_address
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
        session = await handshake(address, context)
        assert (session.version(), session.selected_alpn_protocol()) == ("TLSv1.2", protocol)
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await handshake(address, context)


async def test_an_expired_or_foreign_certificate_is_refused_by_clients(tmp_path: Path, authority: Authority) -> None:
    credentials = authority.channel_credentials()
    async with serving(tmp_path, **tls_settings(authority.server(**EXPIRED))) as server:
        assert "certificate has expired" in await refusal(server.target, credentials)
        stranger = Authority(tmp_path / "other").channel_credentials()
        assert "CERTIFICATE_VERIFY_FAILED" in await refusal(server.target, stranger)


async def test_clients_without_a_good_certificate_are_refused(tmp_path: Path, authority: Authority) -> None:
    client = authority.issue("client", "worker.example.org")
    expired = authority.issue("expired", "worker.example.org", **EXPIRED)
    foreign = Authority(tmp_path / "other").issue("foreign", "worker.example.org")
    flags = tls_settings(authority.server(), authority)
    async with serving(
        tmp_path, credentials=authority.channel_credentials(client), http="127.0.0.1:0", **flags
    ) as server:
        await create(server.stubs)
        assert await presented(server.app.http_address, authority.context(client))
        for bad in (None, expired, foreign):
            assert await refusal(server.target, authority.channel_credentials(bad))
            assert await presented(server.app.http_address, authority.context(bad)) is None


async def wait_until_rotated(server: Server, clock: ManualClock, wanted: bytes, context: ssl.SSLContext) -> None:
    """Wait until both listeners present a certificate."""
    clock.advance(INTERVAL)
    h2 = context
    async with asyncio.timeout(LIMIT):
        while await presented(server.app.http_address, context) != wanted:
            clock.advance(INTERVAL)
    h2.set_alpn_protocols(["h2"])
    async with asyncio.timeout(LIMIT):
        while await presented(server.target, h2) != wanted:
            clock.advance(INTERVAL)


@pytest.mark.timeout(60)
async def test_rotation_under_many_streams_cuts_none(tmp_path: Path, authority: Authority, clock: ManualClock) -> None:
    flags = tls_settings(authority.server(), authority)
    client = authority.issue("client", "worker.example.org")
    old = authority.channel_credentials(client)
    async with serving(tmp_path, clock=clock, credentials=old, http="127.0.0.1:0", **flags) as server:
        events = a_run_of(8)
        await create(server.stubs)
        await append(server.stubs, events[:2])
        requests = [
            StreamEventsRequest(run_id="run", consumer_id=f"{number}", session_id="one", attempt=1)
            for number in range(STREAMS)
        ]
        calls = [server.stubs.events.StreamEvents(request) for request in requests]
        firsts = await asyncio.gather(*(call.read() for call in calls))
        assert all(firsts)

        successor = Authority(tmp_path / "tls")  # the same files, all of them new; the CA before stays beside this one
        successor.path.write_bytes(successor.pem + authority.pem)
        pair = successor.server()
        successor_client = successor.issue("client", "worker.example.org")
        await wait_until_rotated(server, clock, der(pair), successor.context(successor_client))

        await append(server.stubs, events[2:], first=3)
        for_new = connected(server.target, successor.channel_credentials(successor_client))
        async with for_new as stubs:
            assert (await get(stubs)).last_sequence == len(events)
        assert await refusal(server.target, old)  # neither side trusts the other's CA any more
        for call in calls:
            numbers: list[int] = []
            while isinstance(frame := await call.read(), StreamEventsResponse):
                numbers += [event.sequence for event in frame.events.events]
            assert numbers[-1] == len(events)
            assert await call.code() is grpc.StatusCode.OK


async def test_a_broken_new_certificate_leaves_the_last_good_one(
    tmp_path: Path, authority: Authority, clock: ManualClock, capsys: pytest.CaptureFixture[str]
) -> None:
    pair = authority.server()
    certificates = Certificates(CertificateFiles(*pair), clock)
    good = der(pair)
    pair.key.write_bytes(b"junk")
    for _ in range(3):
        await certificates.run_once()
    out, _ = capsys.readouterr()
    assert out.count("certificate_not_reloaded") == 1
    assert "has no private key" in out
    assert served(certificates) == good

    fresh = authority.server()
    await certificates.run_once()
    assert served(certificates) == der(fresh) != good


def served(certificates: Certificates) -> bytes:
    """The certificate that a new HTTP connection gets, without a network."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(to_client, to_server)
    server = certificates.http_context().wrap_bio(to_server, to_client, server_side=True)
    for _ in range(5):
        for side in (client, server):
            with suppress(ssl.SSLWantReadError):
                side.do_handshake()
    found = client.getpeercert(binary_form=True)
    assert found is not None
    return found


def _mismatched(authority: Authority, pair: Pair) -> CertificateFiles:
    return CertificateFiles(pair.cert, authority.issue("other", "localhost").key)


def _encrypted(_: Authority, pair: Pair) -> CertificateFiles:
    encrypt(pair.key)
    return CertificateFiles(*pair)


def _with_folder(_: Authority, pair: Pair) -> CertificateFiles:
    return CertificateFiles(pair.cert, pair.key.parent)


def _without_ca(_: Authority, pair: Pair) -> CertificateFiles:
    return CertificateFiles(pair.cert, pair.key, pair.key)


BAD: dict[str, tuple[Any, str]] = {
    "missing certificate": (lambda _, pair: CertificateFiles(Path("no.pem"), pair.key), "no.pem cannot be read: No su"),
    "missing key": (lambda _, pair: CertificateFiles(pair.cert, Path("no.key")), "tls_key: no.key cannot be read"),
    "folder": (_with_folder, "cannot be read: Is a directory"),
    "mismatched": (_mismatched, "does not belong to the certificate in"),
    "swapped": (lambda _, pair: CertificateFiles(pair.key, pair.cert), "has no private key in PEM form"),
    "twice the key": (lambda _, pair: CertificateFiles(pair.key, pair.key), "has no certificate in PEM form"),
    "encrypted": (_encrypted, "the key is encrypted"),
    "client CA": (_without_ca, "tls_client_ca: "),
}


@pytest.mark.parametrize(("files", "expected"), BAD.values(), ids=BAD)
def test_files_that_cannot_be_used_keep_the_server_from_starting(
    authority: Authority, clock: ManualClock, files: Any, expected: str
) -> None:
    with pytest.raises(StartError) as refused:
        Certificates(files(authority, authority.server()), clock)
    assert expected in str(refused.value)


async def test_the_process_serves_tls_and_logs_no_failed_handshakes(tmp_path: Path, authority: Authority) -> None:
    pair = authority.server()
    process = ServerProcess(tmp_path, http="127.0.0.1:0")
    log = tmp_path / "log"
    with log.open("wb") as stderr:
        await process.start("--tls-cert", str(pair.cert), "--tls-key", str(pair.key), stderr=stderr)
    try:
        async with connected(process.target, authority.channel_credentials()) as stubs:
            await create(stubs)
        assert await refusal(process.target, None)
        assert await refusal(process.target, Authority(tmp_path / "other").channel_credentials())
    finally:
        assert await process.terminate() == 0
    assert "andshake" not in log.read_text()
