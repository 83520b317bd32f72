"""Inside the server, imports point one way: rpc, http -> evaluation, scores -> streaming -> auth -> store -> model.

What watches them, observability, stands above them, and knows the libraries that it tells: they do not.
"""

import pytest

from tree.imports import imports, modules

SERVER = "lavant.server."
LAYERS = (
    {"clock", "errors", "metrics", "model", "slices", "tasks", "turns"},
    {"store"},
    {"auth"},
    {"streaming"},
    {"evaluation", "scores", "otlp"},
    {"rpc", "http"},
    {"observability"},
)  # what is in none of them stands above them all
FACES = LAYERS[5]
TELLING = ("prometheus_client", "opentelemetry")
# Who may name engines besides themselves: what opens them, and what goes from one engine to the other.
KNOWS_ENGINES = ("app", "commands")
# The messages of OpenTelemetry's protocol watch nothing.
RECEIVING = ("otlp", "opentelemetry.proto")
ENGINES = ("lavant.server.store.sqlite", "lavant.server.store.jetstream")


def layer(part: str) -> int:
    """The height of a part of the server; 0 is the lowest."""
    return next((height for height, parts in enumerate(LAYERS) if part in parts), len(LAYERS))


def wrong_imports(module: str, source: str) -> list[str]:
    """What a module of the server must not import, but does."""
    part = module.removeprefix(SERVER).partition(".")[0]
    wrong = []
    for imported in sorted(imports(source)):
        if imported.startswith("lavant.client") and part != "commands":  # commands are part of the CLI
            wrong.append(imported)
        receives = part == RECEIVING[0] and imported.startswith(RECEIVING[1])
        if imported.startswith(TELLING) and part != "observability" and not receives:
            wrong.append(imported)
        if not imported.startswith(SERVER):
            continue
        other = imported.removeprefix(SERVER).partition(".")[0]
        upward = layer(other) > layer(part)
        sideways = {other, part} == FACES or (part == "observability" and other in FACES)
        engine = next((engine for engine in ENGINES if imported.startswith(engine)), None)
        names_engine = engine is not None and part not in KNOWS_ENGINES and not module.startswith(engine)
        if upward or sideways or names_engine:
            wrong.append(imported)
    return wrong


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("lavant.server.model", "import lavant.server.store.port"),
        ("lavant.server.store.port", "from lavant.server.streaming import hub"),
        ("lavant.server.streaming.hub", "def f():\n    from lavant.server.rpc.status import table"),
        ("lavant.server.streaming.hub", "from lavant.server.app.settings import Settings"),
        ("lavant.server.streaming.hub", "from lavant.server.store.sqlite import SqliteStore"),
        ("lavant.server.store", "from lavant.server.store import sqlite"),
        ("lavant.server.http.sse", "from lavant.server.rpc import status"),
        ("lavant.server.app.startup", "from lavant.client import AsyncClient"),
        ("lavant.server.rpc.publish", "from lavant.server.observability.prometheus import PrometheusMetrics"),
        ("lavant.server.observability.prometheus", "from lavant.server.rpc.publish import Publisher"),
        ("lavant.server.observability.prometheus", "from lavant.server.store.sqlite import SQLiteEngine"),
        ("lavant.server.streaming.hub", "from prometheus_client import Counter"),
        ("lavant.server.app.startup", "from opentelemetry import trace"),
        ("lavant.server.otlp.readings", "from opentelemetry import trace"),
        ("lavant.server.store.port", "from opentelemetry.proto.trace.v1 import trace_pb2"),
    ],
)
def test_a_wrong_import_is_seen(module: str, source: str) -> None:
    assert wrong_imports(module, source)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("lavant.server.rpc.run_service", "from lavant.server.streaming.hub import Hub"),
        ("lavant.server.rpc.run_service", "from lavant.server.model import RunKey"),
        ("lavant.server.store.sqlite", "from lavant.server.store.port import Store"),
        ("lavant.server.app.startup", "from lavant.server.store.sqlite import SqliteStore"),
        ("lavant.server.app.startup", "from lavant.server.app.settings import Settings"),
        ("lavant.server.model", "from lavant.v1.run_pb2 import RunState"),
        ("lavant.server.observability.prometheus", "from lavant.server.streaming.hub import Hub"),
        ("lavant.server.observability.prometheus", "from prometheus_client import CollectorRegistry"),
        ("lavant.server.otlp.readings", "from opentelemetry.proto.trace.v1.trace_pb2 import Span"),
        ("lavant.server.store.sqlite.commits", "from lavant.server.metrics import StoreMetrics"),
    ],
)
def test_a_right_import_passes(module: str, source: str) -> None:
    assert not wrong_imports(module, source)


def test_the_server_imports_in_one_direction() -> None:
    wrong = {module: names for module, source in modules("server") if (names := wrong_imports(module, source))}
    assert not wrong


def test_the_client_works_without_the_server() -> None:
    wrong = [
        module
        for module, source in modules("client")
        if module != "lavant.client.cli.app"  # it adds the commands of the server
        and any(name.startswith("lavant.server") for name in imports(source))
    ]
    assert not wrong


def test_the_contract_knows_neither_client_nor_server() -> None:
    wrong = {
        module: names
        for module, source in modules("client")
        if module.startswith("lavant.contract")
        and (names := {name for name in imports(source) if name.startswith(("lavant.client", "lavant.server"))})
    }
    assert not wrong
