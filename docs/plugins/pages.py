"""The pages that are written from code, from the contract and from files of the repository's root."""

import inspect
import re
import types
import typing
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

import annotated_types
from declarations import Member, Type, read, read_all
from google.protobuf import descriptor_pool
from pydantic.fields import FieldInfo

from lavant import client
from lavant.client import errors
from lavant.server.app.settings import Settings
from lavant.server.observability.prometheus import METRICS
from lavant.server.rpc.status import CODES
from lavant.v1.error_pb2 import ErrorReason

ROOT = Path(__file__).parents[2]
UNIONS = (types.UnionType, typing.Union)
MODULES = (
    "client.sse",
    "client.evals",
    "client.integrations.agent_streaming",
    "client.integrations.recording",
    "contract.events",
)
HEADER = "<!-- Written by docs/plugins/pages.py. -->\n\n"


def settings() -> str:
    """Write the table of the server's settings from the settings class."""
    lines = [
        "# Settings",
        "",
        "Flags of `lavant serve`, else environment variables (`--max-streams` is `LAVANT_MAX_STREAMS`), else a TOML"
        " file (`max_streams = 20000`) that `--config` names. Times are in seconds, sizes in bytes.",
        "",
        "| setting | default | bounds | meaning |",
        "|---|---|---|---|",
    ]
    for name, info in Settings.model_fields.items():
        flag = "--" + name.replace("_", "-")
        lines.append(f"| `{flag}` | {_default(info)} | {_bounds(info)} | {_cell(info.description or '')} |")
    lines += [
        "",
        "After start-up the server prints one line to stdout: `lavant serving grpc=127.0.0.1:7447 http=127.0.0.1:7448"
        " admin=127.0.0.1:7449`. Logs go to stderr. SIGTERM drains the server.",
    ]
    return "\n".join(lines) + "\n"


def _default(info: FieldInfo) -> str:
    value = info.get_default(call_default_factory=True)
    if value is None or value in ([], {}):
        return ""
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"`{value:,}`" if isinstance(value, int | float) else f"`{value}`"


def _bounds(info: FieldInfo) -> str:
    annotation = info.annotation
    metadata = list(info.metadata)
    for part in typing.get_args(annotation) if typing.get_origin(annotation) in UNIONS else (annotation,):
        metadata += getattr(part, "__metadata__", ())
        if typing.get_origin(part) is typing.Literal:
            return ", ".join(f"`{choice}`" for choice in typing.get_args(part))
    texts = []
    for item in _flat(metadata):
        if isinstance(item, annotated_types.Ge):
            texts.append(f"≥ {item.ge:,}")
        elif isinstance(item, annotated_types.Gt):
            texts.append(f"> {item.gt:,}")
        elif isinstance(item, annotated_types.Le):
            texts.append(f"≤ {item.le:,}")
    return ", ".join(texts)


def _flat(metadata: list[object]) -> Iterator[object]:
    for item in metadata:
        yield from getattr(item, "metadata", [item])


def errors_page() -> str:
    """Write the table of error reasons, and the tree of the client's exceptions."""
    by_reason = {
        kind.default_reason: name
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, errors.LavantError) and kind.default_reason
    }
    reasons = read("error.proto")["ErrorReason"]
    lines = [
        "# Errors",
        "",
        "Every error of the server names its reason in `google.rpc.ErrorInfo`, in the trailer"
        " `grpc-status-details-bin`. Branch on the reason, not on the status code. Over HTTP, it is"
        " `error.reason` of the response. [Protocol](../protocol.md) says which of them end a stream, and what a reader"
        " does about each.",
        "",
    ]
    for member in reasons.members:
        if member.number:
            name = member.name.removeprefix("ERROR_REASON_")
            code = CODES[typing.cast("ErrorReason.ValueType", member.number)]
            lines += [f"## {name}", "", f"Status `{code.name}`, number {member.number}."]
            if exception := by_reason.get(name):
                lines[-1] += f" The Python client raises [`{exception}`](api.md#lavant.client.{exception})."
            lines += ["", _prose(member.comment), ""]
    tree = (inspect.getdoc(errors) or "").partition("\n\n")[2]
    lines += ["## Exceptions of the Python client", "", "```text", tree.strip(), "```"]
    return "\n".join(lines) + "\n"


def events() -> str:
    """Write what an event is, and each payload with its fields."""
    contract = read_all()
    event = contract["Event"]
    lines = ["# Events", "", _prose(event.comment), "", *_fields(event, [m for m in event.members if not m.oneof]), ""]
    for member in event.members:
        if member.oneof:
            payload = contract[member.type]
            lines += [f"## {member.name}", "", _prose(member.comment), "", _prose(payload.comment), ""]
            lines += [*_fields(payload, payload.members), ""]
    lines += ["## Parts of payloads", ""]
    shown = {"Event", *(member.type for member in event.members)}
    for item in _reachable(contract, [contract[member.type] for member in event.members if member.oneof]):
        if item.name not in shown:
            lines += _type(item, "###")
    return "\n".join(lines) + "\n"


def services() -> str:
    """Write each service with its calls, requests and responses."""
    check_declarations()
    contract = read_all()
    lines = [
        "# Services",
        "",
        "The contract is `protos/lavant/v1`; this page is made of its comments. Read [Protocol](../protocol.md) for"
        " what a client does over time, [Events](events.md) for payloads, and [Errors](errors.md) for reasons.",
        "",
    ]
    shown: set[str] = {"Event", "ErrorReason"}
    for service in (item for item in contract.values() if item.kind == "service"):
        lines += [f"## {service.name}", "", _prose(service.comment), ""]
        for rpc in service.members:
            lines += [f"### {service.name}.{rpc.name}", "", f"`{rpc.type}`", "", _prose(rpc.comment), ""]
            sides = [contract[side.removeprefix("stream ")] for side in rpc.type.split(" → ")]
            for item in [*sides, *_reachable(contract, sides)]:
                if item.name not in shown:
                    shown.add(item.name)
                    lines += _type(item, "####")
    return "\n".join(lines) + "\n"


def metrics() -> str:
    """Write the table of metrics."""
    lines = ["# Metrics", "", "What `/metrics` serves on the admin address, for Prometheus.", ""]
    lines += ["| metric | type | labels | meaning |", "|---|---|---|---|"]
    for metric in METRICS:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        lines.append(f"| `{metric.name}` | {metric.kind} | {labels} | {_cell(metric.text)} |")
    return "\n".join(lines) + "\n"


def api() -> str:
    """Write the page whose contents mkdocstrings reads from the client's docstrings."""
    mirrors = {name.removeprefix("Async") for name in client.__all__ if name.startswith("Async")}
    public = [name for name in client.__all__ if name not in mirrors or name == "Client"]
    groups = {
        "Client": [name for name in public if name.endswith("Client")],
        "Calls, producers and streams": [name for name in public if name.startswith("Async") and name != "AsyncClient"],
        "Values": [
            name for name in public if not name.startswith("Async") and not _is_error(name) and name != "Client"
        ],
        "Exceptions": [name for name in public if _is_error(name)],
    }
    lines = [
        "# Python API",
        "",
        "The names of `lavant.client`. `Client` mirrors `AsyncClient`: the same names without `Async`, the same methods"
        " without `await`.",
        "",
    ]
    for title, names in groups.items():
        lines += [
            f"## {title}",
            "",
            *(f"::: lavant.client.{name}\n    options:\n      heading_level: 3\n" for name in names),
        ]
    lines += ["## Modules", ""]
    for module in MODULES:
        lines.append(f"::: lavant.{module}\n    options:\n      heading_level: 3\n")
    return "\n".join(lines) + "\n"


def _is_error(name: str) -> bool:
    value = getattr(client, name)
    return isinstance(value, type) and issubclass(value, BaseException)


def root_page(name: str) -> Callable[[], str]:
    """Return a writer of a page that is a file of the repository's root, with its links turned to the site's."""
    return lambda: (ROOT / name).read_text(encoding="utf-8").replace("](docs/", "](")


def check_declarations() -> None:
    """Raise ValueError if a field, a value or an RPC of the contract was not read from its file."""
    for path in (ROOT / "generated" / "lavant" / "v1").glob("*_pb2.py"):
        import_module(f"lavant.v1.{path.stem}")
    for item in read_all().values():
        file = descriptor_pool.Default().FindFileContainingSymbol(f"lavant.v1.{item.name}")
        found = {member.name for member in item.members}
        match item.kind:
            case "message":
                declared = set(file.message_types_by_name[item.name].fields_by_name)
            case "enum":
                declared = set(file.enum_types_by_name[item.name].values_by_name)
            case _:
                declared = {method.name for method in file.services_by_name[item.name].methods}
        if found != declared:
            raise ValueError(f"{item.name} declares {declared ^ found}, which declarations.py does not read")


def _reachable(contract: dict[str, Type], roots: list[Type]) -> Iterator[Type]:
    """Yield the types that others refer to, directly or not, without those of events' payloads."""
    waiting, seen = list(roots), {item.name for item in roots}
    while waiting:
        for member in waiting.pop(0).members:
            for name in re.findall(r"\w+", member.type):
                if name in contract and name not in seen and name != "Event":
                    seen.add(name)
                    waiting.append(contract[name])
                    yield contract[name]


def _type(item: Type, heading: str) -> list[str]:
    lines = [f"{heading} {item.name}", "", _prose(item.comment), ""]
    if item.kind == "enum":
        lines += ["| value | number | meaning |", "|---|---|---|"]
        return [*lines, *(f"| `{m.name}` | {m.number} | {_cell(m.comment)} |" for m in item.members), ""]
    return [*lines, *_fields(item, item.members), ""]


def _fields(item: Type, members: list[Member]) -> list[str]:
    if not members:
        return ["No fields."]
    lines = ["| field | type | meaning |", "|---|---|---|"]
    for member in members:
        oneof = f" (one of `{member.oneof}`)" if member.oneof and item.name != "Event" else ""
        kind = member.type.replace("google.protobuf.", "")
        lines.append(f"| `{member.name}` | `{kind}`{oneof} | {_cell(member.comment)} |")
    return lines


def _prose(text: str) -> str:
    """Return a comment as Markdown: identifiers of the contract are code, lists stay lists."""
    text = re.sub(r"(?<=[^\n])\n(- )", r"\n\n\1", text, count=1)
    return re.sub(r"(?<![`\w/.])([a-z]+(?:_[a-z]+)+|[A-Z]+(?:_[A-Z]+)+)(?![`\w/])", r"`\1`", text).replace("<", "&lt;")


def _cell(text: str) -> str:
    return " ".join(_prose(text).split()).replace("|", "\\|")


PAGES: dict[str, Callable[[], str]] = {
    "reference/settings.md": settings,
    "reference/errors.md": errors_page,
    "reference/events.md": events,
    "reference/services.md": services,
    "reference/metrics.md": metrics,
    "reference/api.md": api,
    "contributing.md": root_page("CONTRIBUTING.md"),
    "security.md": root_page("SECURITY.md"),
}
