"""The command `lavant`."""

import os
import sys


def main() -> None:
    """Run the command; without its dependencies, print what to install."""
    # gRPC would write lines of its own about failed connections; it reads this when it is imported.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    try:
        from lavant.client.cli.app import run
    except ModuleNotFoundError as error:
        sys.exit(missing(error))
    except KeyboardInterrupt:
        sys.exit(130)
    _accept_any_text()
    sys.exit(run(sys.argv[1:]))


def missing(error: ModuleNotFoundError) -> str:
    """Return what to install for a module that the command needs."""
    return f"lavant: {error.name} is missing: pip install 'lavant[cli]'"


def _accept_any_text() -> None:
    """Make stdout and stderr replace characters that their encoding lacks, instead of raising."""
    for stream in (sys.stdout, sys.stderr):
        if (reconfigure := getattr(stream, "reconfigure", None)) is not None:
            reconfigure(errors="replace")
