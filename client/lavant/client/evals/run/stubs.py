"""Stubs that replace the tools of evaluated pydantic-ai agents."""

import inspect
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from pydantic_ai import Agent, RunContext
from pydantic_ai.toolsets import AbstractToolset, CombinedToolset, FunctionToolset, ToolsetTool, WrapperToolset
from typing_extensions import override

from lavant.client.errors import ToolNotStubbed
from lavant.client.evaluations import StubCall

_row: ContextVar["_Row | None"] = ContextVar("lavant_evaluated_row", default=None)


class _Row:
    """The row of the current task, and the number of calls of each stub in it."""

    def __init__(self, case: Any, iteration: int) -> None:
        self.case = case
        self.iteration = iteration
        self.calls: Counter[str] = Counter()

    def next_call(self, name: str) -> StubCall:
        index = self.calls[name]
        self.calls[name] += 1
        return StubCall(case=self.case, iteration=self.iteration, index=index)


def begin_row(case: Any, iteration: int) -> None:
    """Set the row of the current task, and of those it starts from now on."""
    _row.set(_Row(case, iteration))


@dataclass(frozen=True, slots=True)
class Stubs:
    """Replacements of tools in an evaluation: no real tool runs there unless `passthrough` names it."""

    answers: Mapping[str, Callable[..., Any]]
    passthrough: Collection[str] = ()

    def check(self, agents: Sequence[Agent[Any, Any]]) -> None:
        """Raise ValueError for a name that no tool has, if the agents' tools are known before they run."""
        if both := sorted({*self.answers} & {*self.passthrough}):
            raise ValueError(f"{', '.join(both)}: a tool has a stub or is passed through, not both")
        tools: set[str] = set()
        for agent in agents:
            for toolset in agent.toolsets:
                names = _names_of(toolset)
                if names is None:
                    return
                tools |= names
        unknown = sorted({*self.answers, *self.passthrough} - tools)
        if unknown:
            known = ", ".join(sorted(tools)) or "none"
            raise ValueError(f"no tool of the agent is named {', '.join(map(repr, unknown))}; its tools are: {known}")

    @contextmanager
    def installed(self, agents: Sequence[Agent[Any, Any]]) -> Iterator[None]:
        """Replace the tools of these agents within the block, if there are any stubs."""
        with ExitStack() as stack:
            for agent in agents if self.answers else ():
                toolsets = [_Stubbed(toolset, self) for toolset in agent.toolsets]
                stack.enter_context(agent.override(tools=(), toolsets=toolsets))
            yield


def _names_of(toolset: AbstractToolset[Any]) -> set[str] | None:
    """Return the names of a toolset's tools; None if only a running agent knows them, as with an MCP server."""
    leaves: list[AbstractToolset[Any]] = []
    toolset.apply(leaves.append)
    plain = all(isinstance(leaf, FunctionToolset) for leaf in leaves)
    if not plain or not isinstance(toolset, FunctionToolset | CombinedToolset):
        return set() if not leaves else None  # wrappers may rename tools
    return {name for leaf in leaves if isinstance(leaf, FunctionToolset) for name in leaf.tools}


@dataclass
class _Stubbed(WrapperToolset[Any]):
    stubs: Stubs

    @override
    async def call_tool(
        self, name: str, tool_args: dict[str, Any], ctx: RunContext[Any], tool: ToolsetTool[Any]
    ) -> Any:
        stub, row = self.stubs.answers.get(name), _row.get()
        if row is None or name in self.stubs.passthrough:
            return await super().call_tool(name, tool_args, ctx, tool)
        if stub is None:
            raise ToolNotStubbed(
                f"the tool {name!r} was called and has no stub: add one to stubs=, or passthrough=[{name!r}] to run it"
            )
        call = row.next_call(name)
        arguments = {**tool_args, **dict.fromkeys(_asked_for(stub), call)}
        try:
            inspect.signature(stub).bind(**arguments)
        except TypeError as wrong:
            given = ", ".join(tool_args) or "none"
            raise TypeError(f"the stub of tool {name!r} does not take its arguments ({given}): {wrong}") from None
        result = stub(**arguments)
        return await result if inspect.isawaitable(result) else result


def _asked_for(stub: Callable[..., Any]) -> list[str]:
    """Return the parameters in which a stub gets its StubCall."""
    parameters = inspect.signature(stub).parameters.values()
    return [one.name for one in parameters if one.annotation in (StubCall, "StubCall")]
