"""Builds all packages of one version into build/release, and publishes nothing: `make release VERSION=1.2.3`.

The version is set in the files of the checkout before. A package for which a program is missing is named at the end.
"""

import hashlib
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from release.go_module import write_go_module
from release.versions import ROOT, BadVersion, set_version

OUT = ROOT / "build" / "release"
IMAGE_BUILDERS = ("docker", "podman")


@dataclass(frozen=True, slots=True)
class Package:
    """A package: its folder, the command that builds it there, and the file that this makes, if not in build/release.

    The command has `{out}`, `{python}` and `{version}`, the file `{version}`.
    """

    name: str
    folder: str
    command: str
    file: str = ""


PACKAGES = (
    Package("Python wheel and sdist", ".", "{python} -m build --outdir {out}"),
    Package("descriptor set of the contract", ".", "protos/describe {out}/lavant-{version}.protoset"),
    Package("npm package", "client/typescript", "npm pack --silent --pack-destination {out}"),
    Package("jar", "client/java", "mvn --batch-mode --quiet -DskipTests package", "build/lavant-client-{version}.jar"),
    Package(
        "crate",
        "client/rust",
        "cargo package -p lavant --allow-dirty --no-verify",
        "../../build/rust/package/lavant-{version}.crate",
    ),
    Package("Helm chart", "server/deploy/helm", "helm package lavant --destination {out}"),
)


def build(version: str) -> Iterator[str]:
    """Build everything; yield the names of packages for which a program is missing. Raises CalledProcessError."""
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    for package in PACKAGES:
        folder = ROOT / package.folder
        words = shlex.split(package.command.format(out=OUT, python=sys.executable, version=version))
        if shutil.which(words[0]) is None:
            yield f"{package.name}: there is no {words[0]}"
            continue
        print(f"building the {package.name}", flush=True)
        subprocess.run(words, cwd=folder, check=True)  # noqa: S603
        if package.file:
            shutil.copy(folder / package.file.format(version=version), OUT)
    print("building the Go module", flush=True)
    write_go_module(ROOT, OUT / "go", version)
    yield from _build_image(version)


def _build_image(version: str) -> Iterator[str]:
    """Build the container image, and save it as a file."""
    builder = next((name for name in IMAGE_BUILDERS if _answers(name)), None)
    if builder is None:
        yield f"container image: neither {' nor '.join(IMAGE_BUILDERS)} answers"
        return
    print("building the container image", flush=True)
    tag, file = f"lavant:{version}", OUT / f"lavant-{version}.image.tar"
    for words in (
        [builder, "build", "--file", "server/deploy/Dockerfile", "--tag", tag, "."],
        [builder, "save", "--output", str(file), tag],
    ):
        subprocess.run(words, cwd=ROOT, check=True)  # noqa: S603


def _answers(builder: str) -> bool:
    """Return whether a builder of images is there and works: docker also has a daemon."""
    if shutil.which(builder) is None:
        return False
    return subprocess.run([builder, "info"], capture_output=True, check=False).returncode == 0  # noqa: S603


def main(version: str) -> None:
    """Set the version, build, and list what there is then."""
    set_version(version)
    missing = list(build(version))
    files = sorted(path for path in OUT.rglob("*") if path.is_file())
    sums = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(OUT)}" for path in files]
    (OUT / "SHA256SUMS").write_text("\n".join(sums) + "\n")
    print(*(f"{path.relative_to(ROOT)} {path.stat().st_size:,} bytes" for path in files), sep="\n")
    for one in missing:
        print(f"not built: {one}")
    print(f"nothing is published; the tags of this version are v{version} and client/go/v{version}")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:2] or [""])
    except (BadVersion, subprocess.CalledProcessError) as error:
        sys.exit(f"release: {error}")
