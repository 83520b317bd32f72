"""Which step the code of a tool works for."""

from contextvars import Token
from typing import Protocol
from uuid import UUID

from lavant.client import _scope
from lavant.client.integrations._langchain_begun import Begun


class _Root(Protocol):
    @property
    def run(self) -> object: ...

    def step_of(self, key: UUID) -> str: ...


class ToolScopes:
    """Makes what lavant records of a tool's code, an agent at work or a block, part of the tool's step.

    LangChain runs a tool in a copy of the context in which it says that the tool begins, and says in
    that one that it ended.
    """

    def __init__(self) -> None:
        self._entered: dict[UUID, Token[_scope.Scope | None]] = {}

    def enter(self, root: _Root, begun: Begun) -> None:
        """A tool begins: from here on the context works for it. Others than tools are left alone."""
        if begun.kind == "tool" and (step_id := root.step_of(begun.key)):
            self._entered[begun.key] = _scope.enter(root.run, step_id)

    def leave(self, key: UUID) -> None:
        """It ended."""
        if token := self._entered.pop(key, None):
            _scope.leave(token)
