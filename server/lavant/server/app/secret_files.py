"""Secret settings, which are read from files or the environment rather than from arguments."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

_SUFFIX = "_file"


def _key_lines(text: str) -> dict[str, str]:
    """Read lines ID=KEY; empty ones and those that start with # are ignored."""
    lines = [line.strip() for line in text.splitlines()]
    pairs = [line.partition("=") for line in lines if line and not line.startswith("#")]
    if not all(equals for _, equals, _ in pairs):
        raise ValueError("must have lines ID=KEY")
    return {key_id.strip(): key.strip() for key_id, _, key in pairs}


SECRETS: Mapping[str, Callable[[str], Any]] = {"store": str.strip, "token_keys": _key_lines, "nats_password": str.strip}


def read_secret_files(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with the secrets that are given by files. Raises ValueError that names a setting."""
    found = dict(values)
    for name, parse in SECRETS.items():
        path = found.get(f"{name}{_SUFFIX}")
        if path is None:
            continue
        if name in found:
            raise ValueError(f"{name} and {name}{_SUFFIX} are both set; set one of them")
        try:
            found[name] = parse(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise ValueError(f"{name}{_SUFFIX}: {path} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ValueError(f"{name}{_SUFFIX}: {path} is not a text file") from None
        except ValueError as error:
            raise ValueError(f"{name}{_SUFFIX}: {path} {error}") from None
    return found


def secrets_in(arguments: Sequence[str]) -> Iterator[str]:
    """Yield the settings whose secrets are among the arguments of the process, which other users can read."""
    for index, argument in enumerate(arguments):
        flag, equals, value = argument.partition("=")
        name = flag.removeprefix("--").replace("-", "_")
        if not flag.startswith("--") or name not in SECRETS:
            continue
        given = value if equals else "".join(arguments[index + 1 : index + 2])
        if name != "store" or "@" in given:
            yield name
