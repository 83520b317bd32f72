"""All packages have one version, `make release` can set it, and the Go module is what users of Go can download."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from release.go_module import write_go_module
from release.packages import PACKAGES
from release.versions import PLACES, ROOT, BadVersion, set_version, versions

COPIED = [*PLACES, "client/go/go.mod"]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the files that have a version."""
    for name in COPIED:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def test_all_packages_have_one_version() -> None:
    found = list(versions())
    assert len({version for _, version in found}) == 1, found
    assert {name for name, _ in found} == set(PLACES)


def test_packages_are_in_the_tree() -> None:
    assert [package.folder for package in PACKAGES if not (ROOT / package.folder).is_dir()] == []


def test_version_is_set_in_all_files(checkout: Path) -> None:
    before = {name: (checkout / name).read_text() for name in COPIED}
    old = next(iter(versions(checkout)))[1]
    set_version("0.9.10-rc.1", checkout)
    assert {version for _, version in versions(checkout)} == {"0.9.10-rc.1"}
    set_version(old, checkout)
    assert {name: (checkout / name).read_text() for name in COPIED} == {
        name: text.replace("-SNAPSHOT", "") for name, text in before.items()
    }


@pytest.mark.parametrize("version", ["", "1", "1.2", "v1.2.3", "1.2.3.4", "01.2.3", "1.2.3-beta", "1.2.3\n", "2.0.0"])
def test_bad_version_changes_nothing(checkout: Path, version: str) -> None:
    before = [(checkout / name).read_text() for name in COPIED]
    with pytest.raises(BadVersion):
        set_version(version, checkout)
    assert [(checkout / name).read_text() for name in COPIED] == before


def test_file_whose_version_is_not_found_is_named(checkout: Path) -> None:
    file = checkout / "server/deploy/helm/lavant/Chart.yaml"
    file.write_text("name: lavant\n")
    with pytest.raises(BadVersion, match=r"Chart\.yaml has no version"):
        set_version("1.0.0", checkout)


@pytest.mark.skipif(shutil.which("go") is None, reason="needs go")
def test_go_module_can_be_downloaded(tmp_path: Path) -> None:
    write_go_module(ROOT, tmp_path / "proxy", "0.9.10")
    environment = {
        **os.environ,
        "GOPROXY": (tmp_path / "proxy").as_uri(),
        "GONOSUMDB": "*",
        "GOFLAGS": "-modcacherw",
        "GOMODCACHE": str(tmp_path / "cache"),
    }
    done = subprocess.run(
        ["go", "mod", "download", "-json", "lavant.dev/go@v0.9.10"],
        cwd=tmp_path, env=environment, check=True, capture_output=True, timeout=50,
    )  # fmt: skip
    folder = Path(json.loads(done.stdout)["Dir"])
    assert (folder / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    assert {file.name for file in folder.glob("*.go")} == {file.name for file in (ROOT / "client/go").glob("*.go")}
