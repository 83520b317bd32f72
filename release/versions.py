"""The version of all packages, in every file that has it: each package is released with the same one.

`python -m release.versions` prints it, and sets it to its argument. The Go module has a tag in place of a file with it.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
VERSION = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(-rc\.\d+)?")
SNAPSHOT = "-SNAPSHOT"  # Maven's suffix of a version that is not released yet
# Files, and a pattern whose group is the version, for all of its occurrences.
PLACES = {
    "pyproject.toml": r'^version = "(.+)"$',
    "client/typescript/package.json": r'^  "version": "(.+)",$',
    "client/typescript/package-lock.json": r'"name": "@lavant/client",\n +"version": "(.+)",$',
    "client/java/pom.xml": r"<artifactId>lavant-client</artifactId>\s+<version>(.+)</version>",
    "client/java/README.md": r"<artifactId>lavant-client</artifactId>\s+<version>(.+)</version>",
    "client/rust/Cargo.toml": r'^name = "lavant"\nversion = "(.+)"$',
    "client/rust/Cargo.lock": r'^name = "lavant"\nversion = "(.+)"$',
    "server/deploy/Dockerfile": r"--tag lavant:(\S+)",
    "server/deploy/compose.yaml": r"^  image: lavant:(\S+)$",
    "server/deploy/kubernetes/lavant.yaml": r"^ +image: lavant:(\S+)$",
    "server/deploy/helm/lavant/Chart.yaml": r"^(?:version|appVersion): (.+)$",
}


class BadVersion(ValueError):
    """A version that packages cannot have, or a file whose version is not found."""


def versions(root: Path = ROOT) -> Iterator[tuple[str, str]]:
    """Yield each file with each version that it has. Raises BadVersion for a file without any."""
    for name, pattern in PLACES.items():
        found = re.findall(pattern, (root / name).read_text(encoding="utf-8"), re.MULTILINE)
        if not found:
            raise BadVersion(f"{name} has no version where {pattern!r} should find it")
        yield from ((name, version.removesuffix(SNAPSHOT)) for version in found)


def set_version(version: str, root: Path = ROOT) -> None:
    """Set the version in all files. Raises BadVersion."""
    parts = VERSION.fullmatch(version)
    if parts is None:
        raise BadVersion(f"{version!r} is no version; use MAJOR.MINOR.PATCH or MAJOR.MINOR.PATCH-rc.N")
    module = re.search(r"^module (\S+)$", (root / "client/go/go.mod").read_text(encoding="utf-8"), re.MULTILINE)
    major = int(parts[1])
    if module is None or (major > 1) != module[1].endswith(f"/v{major}"):
        raise BadVersion(f"from 2.0.0 on, the path of the module in client/go/go.mod must end with /v{major}")
    list(versions(root))  # all of them are found before any is changed
    for name, pattern in PLACES.items():
        file = root / name
        text = file.read_text(encoding="utf-8")
        file.write_text(re.sub(pattern, lambda found: _replaced(found, version), text, flags=re.MULTILINE), "utf-8")


def _replaced(found: re.Match[str], version: str) -> str:
    whole, start = found[0], found.start()
    return whole[: found.start(1) - start] + version + whole[found.end(1) - start :]


if __name__ == "__main__":
    try:
        if sys.argv[1:]:
            set_version(sys.argv[1])
        print(*sorted({version for _, version in versions()}))
    except BadVersion as error:
        sys.exit(f"release: {error}")
