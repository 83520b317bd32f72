"""`python -m lavant.server`, the same as `lavant serve`."""

import asyncio
import os
import signal
import sys
from collections.abc import Sequence

# By default gRPC writes a line to stderr for each handshake that fails, which strangers can repeat; it reads this when
# it is imported.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

import structlog
import uvloop
from pydantic import ValidationError
from pydantic_settings import CliApp, SettingsError

from lavant.server.app.logs import configure_logs
from lavant.server.app.secret_files import secrets_in
from lavant.server.app.settings import CONFIG_VARIABLE, OFF, Settings
from lavant.server.app.startup import running
from lavant.server.errors import StartError

_EXIT_USAGE = 2
_EXIT_CANNOT_START = 1
_MESSAGES = {"extra_forbidden": "is not a setting; names in a file are written like max_streams"}

_log = structlog.get_logger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT, then drain; return the exit status of the process."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        settings = _read_settings(arguments)
    except (ValidationError, SettingsError) as error:
        print(_explain(error), file=sys.stderr)
        return _EXIT_USAGE
    configure_logs(settings.log_level, settings.log_format)
    for name in secrets_in(arguments):
        instead = f"--{name.replace('_', '-')}-file or LAVANT_{name.upper()}"
        _log.warning("secret_in_arguments", setting=name, hint=f"other users can read arguments; use {instead}")
    try:
        uvloop.run(_serve(settings))
    except StartError as error:
        print(f"lavant: {error}", file=sys.stderr)
        return _EXIT_CANNOT_START
    return 0


async def _serve(settings: Settings) -> None:
    """Serve until a signal; scripts wait for the line on stdout, which names the addresses."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with running(settings) as app:
        addresses = {"grpc": app.address, "http": app.http_address, "admin": app.admin_address}
        others = {"otlp": app.otlp_address, "otlp_http": app.otlp_http_address}
        addresses |= {name: address for name, address in others.items() if address != OFF}
        print("lavant serving", *(f"{name}={address}" for name, address in addresses.items()), flush=True)
        if app.first_key:
            print(f"lavant created its first API key, which is shown only now: {app.first_key}", flush=True)
        if not settings.auth:
            _log.warning("open_to_all", hint="every caller may do everything; require credentials with --auth keys")
        await stop.wait()
        _log.info("draining", calls=len(app.calls))


def _read_settings(argv: list[str]) -> Settings:
    for index, argument in enumerate(argv):
        name, _, value = argument.partition("=")
        if name == "--config":
            # The file is a source of settings itself, so its name must be known before the flags are parsed.
            os.environ[CONFIG_VARIABLE] = value or "".join(argv[index + 1 : index + 2])
    try:
        return CliApp.run(Settings, cli_args=argv)
    except RecursionError:
        raise SettingsError("a setting is JSON that is nested too deeply; use the form that --help shows") from None


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
