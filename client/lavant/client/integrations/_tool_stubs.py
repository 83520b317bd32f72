"""Stubs in place of the tools of evaluated agents of pydantic-ai."""

import inspect
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from pydantic_ai import Agent, RunContext
from pydantic_ai.toolsets import ToolsetTool, WrapperToolset
from typing_extensions import override

from lavant.client._stub_call import StubCall

_row: ContextVar["_Row | None"] = ContextVar("lavant_evaluated_row", default=None)


class _Row:
    """The row that the current task works for, and how often each stub was called in it."""

    def __init__(self, case: Any, iteration: int) -> None:
        self.case = case
        self.iteration = iteration
        self.calls: Counter[str] = Counter()

    def next_call(self, name: str) -> StubCall:
        index = self.calls[name]
        self.calls[name] += 1
        return StubCall(case=self.case, iteration=self.iteration, index=index)


def begin_row(case: Any, iteration: int) -> None:
    """From here on, the current task and those that it begins work for this row."""
    _row.set(_Row(case, iteration))


@contextmanager
def stubbed(agents: Sequence[Agent[Any, Any]], stubs: Mapping[str, Callable[..., Any]]) -> Iterator[None]:
    """Answer these agents' calls of the stubs' names by the stubs; all other tools work as usual."""
    with ExitStack() as stack:
        for agent in agents if stubs else ():
            toolsets = [_Stubbed(toolset, stubs) for toolset in agent.toolsets]
            stack.enter_context(agent.override(tools=(), toolsets=toolsets))
        yield


@dataclass
class _Stubbed(WrapperToolset[Any]):
    stubs: Mapping[str, Callable[..., Any]]

    @override
    async def call_tool(
        self, name: str, tool_args: dict[str, Any], ctx: RunContext[Any], tool: ToolsetTool[Any]
    ) -> Any:
        stub, row = self.stubs.get(name), _row.get()
        if stub is None or row is None:
            return await super().call_tool(name, tool_args, ctx, tool)
        call = row.next_call(name)
        told = dict.fromkeys(_asked_for(stub), call)
        result = stub(**tool_args, **told)
        return await result if inspect.isawaitable(result) else result


def _asked_for(stub: Callable[..., Any]) -> list[str]:
    """The parameters by which a stub asks for its StubCall."""
    parameters = inspect.signature(stub).parameters.values()
    return [one.name for one in parameters if one.annotation in (StubCall, "StubCall")]
