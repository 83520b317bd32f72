"""`python -m lavant.server`, the same as `lavant serve`."""

import os
import sys
from collections.abc import Sequence

import uvloop
from pydantic import ValidationError
from pydantic_settings import CliApp, SettingsError

from lavant.server.errors import StartError
from lavant.server.logs import configure_logs
from lavant.server.serving import serve
from lavant.server.settings import CONFIG_VARIABLE, Settings
from lavant.server.workers import supervise

_EXIT_USAGE = 2
_EXIT_CANNOT_START = 1

_MESSAGES = {"extra_forbidden": "is no setting; in a file they are written like max_streams"}


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT, then drain; returns the process's exit status."""
    try:
        settings = _read_settings(list(sys.argv[1:] if argv is None else argv))
    except (ValidationError, SettingsError) as error:
        print(_explain(error), file=sys.stderr)
        return _EXIT_USAGE
    configure_logs(settings.log_level, settings.log_format)
    try:
        uvloop.run(serve(settings) if settings.workers == 1 else supervise(settings))
    except StartError as error:
        print(f"lavant: {error}", file=sys.stderr)
        return _EXIT_CANNOT_START
    return 0


def _read_settings(argv: list[str]) -> Settings:
    for index, argument in enumerate(argv):
        name, _, value = argument.partition("=")
        if name == "--config":
            os.environ[CONFIG_VARIABLE] = value or "".join(argv[index + 1 : index + 2])
    return CliApp.run(Settings, cli_args=argv)


def _explain(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return f"lavant: {error}"
    lines = []
    for problem in error.errors():
        name = ".".join(str(part) for part in problem["loc"])
        message = _MESSAGES.get(problem["type"], problem["msg"].removeprefix("Value error, "))
        lines.append(f"lavant: {name}: {message}" if name else f"lavant: {message}")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
