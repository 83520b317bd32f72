"""Who judges: an evaluator's name, version and settings, as they are stored with its scores."""

import re
from dataclasses import dataclass
from typing import Any

from pydantic_evals.evaluators import Evaluator

from lavant.client import _json

_LARGEST_CONFIG = 16 << 10
_HIDDEN = "***"
_SECRET_ENDS = (
    "accesskey",
    "apikey",
    "authorization",
    "cookie",
    "credential",
    "credentials",
    "passphrase",
    "passwd",
    "privatekey",
    "secretkey",
    "signingkey",
    "token",
)
_IN_URL = re.compile(r"(?<=://)[^/\s@]+(?=@)")
# With a digit in what follows: "Basic understanding" is no secret.
_IN_HEADER = re.compile(r"\b(Bearer|Basic)\s+(?=\S*\d)\S{16,}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """An evaluator, as its scores tell of it."""

    name: str
    version: str = ""
    config: Any = None


def describe(evaluator: Evaluator[Any, Any, Any]) -> Described:
    """Tell an evaluator's name, version and settings.

    The version is what `get_evaluator_version()` says, else an attribute `evaluator_version`. The settings are
    the arguments that are not the defaults, as JSON, or their beginning; of what JSON cannot say there is only the
    class.
    Values under names of secrets, such as `api_key`, and credentials in URLs are hidden.
    """
    version = evaluator.get_evaluator_version() or getattr(evaluator, "evaluator_version", None)
    return Described(
        name=evaluator.get_serialization_name(),
        version=str(version or ""),
        config=_config_of(evaluator.build_serialization_arguments()),
    )


def _config_of(arguments: dict[str, Any]) -> Any:
    if not arguments:
        return None
    config = _without_secrets(_json.decode(_json.encode(arguments)))
    return _json.decode(_json.bounded_text(_json.encode(config), _LARGEST_CONFIG))


def _without_secrets(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _HIDDEN if _is_secret(key) else _without_secrets(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_secrets(item) for item in value]
    if isinstance(value, str):
        return _IN_HEADER.sub(rf"\1 {_HIDDEN}", _IN_URL.sub(_HIDDEN, value))
    return value


def _is_secret(name: str) -> bool:
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    return "secret" in plain or "password" in plain or plain.endswith(_SECRET_ENDS)
