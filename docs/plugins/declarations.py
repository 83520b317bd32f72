"""Messages, enums and services of the contract with their comments, read from the .proto files.

Generated Python code has no comments, so this reads the files themselves. They have one declaration a line, after its
comment, and no nested types.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

CONTRACT = Path(__file__).parents[2] / "protos" / "lavant" / "v1"
_TYPE = re.compile(r"(message|enum|service) (\w+) \{(\})?")
_FIELD = re.compile(r"((?:optional |repeated )?[\w.]+(?:<[\w., ]+>)?) (\w+) = (\d+)(?: \[(.+)\])?;")
_VALUE = re.compile(r"(\w+) = (\d+)(?: \[.+\])?;")
_RPC = re.compile(r"rpc (\w+)\((stream )?(\w+)\) returns \((stream )?(\w+)\)")


@dataclass(slots=True)
class Member:
    """A field, a value or an RPC; `type` is a field's type, or an RPC's request and response."""

    name: str
    type: str
    number: int
    comment: str
    options: str = ""
    oneof: str = ""


@dataclass(slots=True)
class Type:
    """A message, an enum or a service."""

    kind: str
    name: str
    comment: str
    members: list[Member] = field(default_factory=list)


def read(name: str) -> dict[str, Type]:
    """Return the types of a file of the contract, such as "event.proto", by name."""
    types: dict[str, Type] = {}
    comment: list[str] = []
    current: Type | None = None
    oneof = ""
    for line in _statements((CONTRACT / name).read_text(encoding="utf-8")):
        if line.startswith("//"):
            comment.append(line.removeprefix("//").removeprefix(" "))
            continue
        text = "\n".join(comment).strip()
        comment.clear()
        if current is None:
            if found := _TYPE.match(line):
                current = types[found[2]] = Type(found[1], found[2], text)
                if found[3]:
                    current = None
        elif line.startswith("oneof "):
            oneof = line.split()[1]
        elif line == "}":
            current, oneof = (current, "") if oneof else (None, "")
        elif found := _RPC.match(line):
            request, response = (found[2] or "") + found[3], (found[4] or "") + found[5]
            current.members.append(Member(found[1], f"{request} → {response}", 0, text))
        elif current.kind == "enum" and (found := _VALUE.match(line)):
            current.members.append(Member(found[1], "", int(found[2]), text))
        elif found := _FIELD.match(line):
            current.members.append(Member(found[2], found[1], int(found[3]), text, found[4] or "", oneof))
    return types


def read_all() -> dict[str, Type]:
    """Return the types of all files of the contract, by name."""
    return {name: item for path in sorted(CONTRACT.glob("*.proto")) for name, item in read(path.name).items()}


def _statements(source: str) -> list[str]:
    """Split a file into comments' lines, declarations and closing braces; a declaration may span lines."""
    statements: list[str] = []
    pending = ""
    for line in (raw.strip() for raw in source.splitlines()):
        if line.startswith("//") and not pending:
            statements.append(line)
        elif line:
            pending = f"{pending} {line}".strip()
            if pending.endswith((";", "{", "}")) and pending.count("[") == pending.count("]"):
                statements.append(pending)
                pending = ""
        elif not pending and statements and statements[-1].startswith("//"):
            statements.append("")  # a comment that belongs to no declaration
    return statements
