"""Programs of other systems: found on this machine, or installed from a package registry."""

import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.peers.base import UnavailableError

_INSTALL_LIMIT = 300.0


def program(name: str, *folders: str) -> str:
    """Return the path of a program in PATH, beside the interpreter, or in folders below /, as patterns.

    Raises UnavailableError.
    """
    beside = str(Path(sys.executable).parent)
    matches = [str(match) for folder in folders for match in sorted(Path("/").glob(folder), reverse=True)]
    for path in (None, beside, *matches):
        if found := shutil.which(name, path=path):
            return found
    raise UnavailableError(f"{name} is not installed")


def debian_package(name: str) -> None:
    """Install a package of Debian, and keep its service from starting; raise UnavailableError if that fails."""
    run("apt-get", "update", "-q")
    # The bench runs servers of its own, so no service may start: dpkg asks this for each, and 101 forbids.
    policy = Path("/usr/sbin/policy-rc.d")
    forbid = not policy.exists()
    try:
        if forbid:
            policy.write_text("#!/bin/sh\nexit 101\n")
            policy.chmod(0o755)
        run("apt-get", "install", "-y", "-q", "--no-install-recommends", name)
    except OSError as error:
        raise UnavailableError(f"{name} cannot be installed: {error}") from error
    finally:
        if forbid:
            policy.unlink(missing_ok=True)


def run(*command: str, folder: Path | None = None) -> None:
    """Run an installer; raise UnavailableError if it fails."""
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=_INSTALL_LIMIT)
    except (OSError, subprocess.SubprocessError) as error:
        raise UnavailableError(f"{' '.join(command[:3])} failed") from error
