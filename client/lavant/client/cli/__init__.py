"""The command `lavant`."""

import sys


def main() -> None:
    """Run the command; says what to install if its parts are missing."""
    try:
        from lavant.client.cli._app import run
        from lavant.client.cli._lines import accept_any_text
    except ModuleNotFoundError as error:
        sys.exit(f"lavant: {error.name} is missing: pip install 'lavant[cli]'")
    except KeyboardInterrupt:
        sys.exit(130)
    accept_any_text()
    sys.exit(run(sys.argv[1:]))
