"""The files of a Go module as a module proxy serves them: https://go.dev/ref/mod#goproxy-protocol.

A proxy makes them itself from the tag `client/go/vVERSION`. Here they show before that what users will get:
`GOPROXY=file://…/build/release/go go get lavant.dev/go@vVERSION`.
"""

import json
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

FOLDER = "client/go"


def write_go_module(root: Path, out: Path, version: str) -> list[Path]:
    """Write the module of a checkout into a folder; return the files. Only what git tracks belongs to it."""
    definition = (root / FOLDER / "go.mod").read_text(encoding="utf-8")
    found = re.search(r"^module (\S+)$", definition, re.MULTILINE)
    if found is None:
        raise ValueError(f"{FOLDER}/go.mod names no module")
    module, tag = found[1], f"v{version}"
    changed = datetime.fromtimestamp(int(_git(root, "log", "-1", "--format=%ct").strip()), UTC)
    files = out / module / "@v"
    files.mkdir(parents=True, exist_ok=True)
    (files / "list").write_text(f"{tag}\n")
    (files / f"{tag}.info").write_text(json.dumps({"Version": tag, "Time": f"{changed:%Y-%m-%dT%H:%M:%SZ}"}))
    (files / f"{tag}.mod").write_text(definition)
    with ZipFile(files / f"{tag}.zip", "w", ZIP_DEFLATED) as archive:
        for path in _git(root, "ls-files", "-z", FOLDER).split("\0")[:-1]:
            _add(archive, f"{module}@{tag}/{path.removeprefix(FOLDER)[1:]}", root / path)
        _add(archive, f"{module}@{tag}/LICENSE", root / "LICENSE")  # as Go does for a module in a folder
    return sorted(files.iterdir())


def _add(archive: ZipFile, name: str, file: Path) -> None:
    archive.writestr(ZipInfo(name), file.read_bytes(), ZIP_DEFLATED)  # without times, so that it is the same each time


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", "-C", root, *arguments], check=True, capture_output=True, text=True).stdout  # noqa: S603, S607
