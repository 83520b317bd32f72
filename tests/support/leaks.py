"""Secrets of tests, and where they must not appear: logs, metrics and texts of errors."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import pytest
from grpc import aio

from lavant.server.auth.access_tokens import AccessTokens
from lavant.server.auth.keys import Keys
from lavant.server.auth.signing import Signer
from lavant.server.errors import ServiceError
from lavant.server.observability.prometheus import PrometheusMetrics

_WORD = re.compile("[A-Za-z0-9]{12,}")
_CREDENTIAL = re.compile(r"\b(?:lvk|lva)_[A-Za-z0-9_-]{40,}")

_secrets: set[str] = set()  # the longest word of each, which is random
_texts: set[str] = set()  # of errors and metrics, since the last report


def secret(text: str) -> str:
    """Note a secret that a test uses, and return it."""
    if (words := _WORD.findall(text)) and len(set(longest := max(words, key=len))) > 4:  # no key of zeros
        _secrets.add(longest)
    return text


def printed(text: str) -> str:
    """Note the credentials that a process has printed for its user, and return the text."""
    for credential in _CREDENTIAL.findall(text):
        secret(credential)
    return text


def written(text: str) -> str:
    """Note a text that must hold no secret, such as the log of a process, and return it."""
    _texts.add(text)
    return text


def leaked(texts: Iterable[str]) -> list[str]:
    """Return the lines of some texts that hold a secret."""
    lines = (line for text in texts for line in text.splitlines())
    return [line for line in lines if not _secrets.isdisjoint(_WORD.findall(line))]


def check(report: pytest.TestReport) -> None:
    """Let a test fail whose servers logged a secret, or had one in metrics or in the text of an error."""
    lines = leaked([*(text for _, text in report.sections), *_texts])
    _texts.clear()
    if lines and report.passed:
        report.outcome = "failed"
        report.longrepr = "\n".join(["secrets appeared in logs, metrics or texts of errors:", *lines])


@contextmanager
def observed() -> Iterator[None]:
    """Note the secrets that servers of this process create within the block, and the texts that leave any server."""
    create_key, issue, replace_keys = Keys.create, AccessTokens.issue, Signer.replace_keys
    exposition, new_error, new_status = PrometheusMetrics.exposition, ServiceError.__init__, aio.AioRpcError.__init__

    async def creating(self: Keys, *what: Any) -> Any:
        key, text = await create_key(self, *what)
        return key, secret(text)

    def issuing(self: AccessTokens, *what: Any, **more: Any) -> Any:
        text, expires_ns = issue(self, *what, **more)
        return secret(text), expires_ns

    def replacing(self: Signer, keys: Any) -> None:
        for key in keys.values():
            secret(key.hex())
        replace_keys(self, keys)

    def exposing(self: PrometheusMetrics) -> tuple[bytes, str]:
        body, content_type = exposition(self)
        written(body.decode())
        return body, content_type

    def failing(self: ServiceError, *what: Any, **more: Any) -> None:
        new_error(self, *what, **more)
        written(self.message)

    def receiving(self: aio.AioRpcError, *what: Any, **more: Any) -> None:
        new_status(self, *what, **more)
        written(self.details() or "")

    with (
        patch.object(Keys, "create", creating),
        patch.object(AccessTokens, "issue", issuing),
        patch.object(Signer, "replace_keys", replacing),
        patch.object(PrometheusMetrics, "exposition", exposing),
        patch.object(ServiceError, "__init__", failing),
        patch.object(aio.AioRpcError, "__init__", receiving),
    ):
        yield
