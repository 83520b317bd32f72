"""Servers that tests can ask for."""

import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path

import pytest

from lavant.server.store.jetstream import Location
from support import leaks
from support.clock import ManualClock
from support.nats import NatsServer, fresh_location, nats_server, without_streams
from support.server import Server, ServerProcess, serving

# A shell has its background jobs ignore SIGINT, and what they start would too.
signal.signal(signal.SIGINT, signal.default_int_handler)


# Fixtures that start something beside lavant: whoever asks for one of them has the marker, however indirectly.
_NEEDS = {
    "nats": {"nats", "own_nats", "one_server", "three_servers"},
    "envoy": {"envoy"},
    "browser": {"browser"},
}
_LONG = 60  # seconds: tests with a higher limit of their own are slow


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Run more workers than there are processors: tests wait for half of their time."""
    return (os.cpu_count() or 1) * 3 // 2


@pytest.hookimpl(tryfirst=True)  # before -m selects by marker
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by what they start, where they are and how long they may take."""
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        for marker, names in _NEEDS.items():
            if fixtures & names:
                item.add_marker(marker)
        if "browser" in fixtures:  # it lives in the loop of the session
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)
        parameters = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
        if parameters.get("engine") in {"jetstream", "cluster"}:  # its fixture asks for servers while the test runs
            item.add_marker("nats")
        if "chaos" in item.path.parts:
            item.add_marker("chaos")
        if "envoy" in item.name or "envoy" in item.path.stem:
            item.add_marker("envoy")
        limit = item.get_closest_marker("timeout")
        if limit is not None and limit.args and limit.args[0] > _LONG:
            item.add_marker("slow")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let a test fail after which a secret of any test is in a log, in metrics or in the text of an error."""
    report = yield
    leaks.check(report)
    return report


@pytest.fixture(scope="session", autouse=True)
def _observed_secrets() -> Iterator[None]:
    with leaks.observed():
        yield


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say at the end what was skipped, and what to install for it."""
    reports = terminalreporter.stats.get("skipped", [])
    for reason, count in Counter(report.longrepr[2].removeprefix("Skipped: ") for report in reports).items():
        terminalreporter.write_line(f"{count} tests were skipped: {reason}", yellow=True)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    """A server in this process, with the machine's clock."""
    async with serving(tmp_path) as running_server:
        yield running_server


@pytest.fixture
def clock() -> ManualClock:
    """A clock that stands still until it is moved."""
    return ManualClock()


@pytest.fixture
async def timed_server(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Server]:
    """A server in this process that lives by the `clock` fixture."""
    async with serving(tmp_path, clock=clock) as running_server:
        yield running_server


@pytest.fixture
async def server_process(tmp_path: Path) -> AsyncIterator[ServerProcess]:
    """A server in a process of its own, started."""
    process = ServerProcess(tmp_path)
    await process.start()
    yield process
    await process.kill()


@pytest.fixture(scope="session")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """A NATS server for all tests."""
    with nats_server(tmp_path_factory.mktemp("nats")) as server:
        yield server


@pytest.fixture
async def location(nats: NatsServer) -> AsyncIterator[Location]:
    """A store of its own on NATS."""
    location = fresh_location([nats])
    async with without_streams(location):
        yield location
