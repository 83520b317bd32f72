"""The demo's agent: real pydantic-ai with real tools, and a scripted model, so that it runs offline."""

import ast
import asyncio
import operator
from collections.abc import AsyncIterator, Callable

from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage, ToolReturnPart
from pydantic_ai.models.function import (
    AgentInfo,
    DeltaThinkingCalls,
    DeltaThinkingPart,
    DeltaToolCall,
    DeltaToolCalls,
    FunctionModel,
)

QUESTION = "How long would the Rhine at Basel take to fill Lake Zurich?"
WORD_PAUSE = 0.045
PAGE_PAUSE = 0.6

DOCUMENTS = {
    "rhine": [
        "The Rhine rises in the canton of Graubünden.",
        "At Basel it carries 1050 cubic metres a second, averaged over the year.",
        "It reaches the North Sea after 1233 km.",
    ],
    "lake-zurich": [
        "Lake Zurich is a lake of the last ice age.",
        "It is 136 m deep at its deepest.",
        "It holds 3900000000 cubic metres of water.",
        "Its outflow is the Limmat.",
    ],
    "lake-constance": ["Lake Constance lies on the Rhine.", "It holds 48 cubic kilometres."],
}
OPERATORS: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}

Chunk = str | DeltaToolCalls | DeltaThinkingCalls


async def search(query: str) -> list[str]:
    """Find the documents that share most words with the query."""
    words = {word.strip(".,?").lower() for word in query.split()}
    scores = {name: len(words & _words(" ".join(pages) + " " + name)) for name, pages in DOCUMENTS.items()}
    await asyncio.sleep(0.3)
    return sorted(DOCUMENTS, key=lambda name: -scores[name])[:2]


async def read_document(name: str) -> str:
    """Read a document, slowly, page by page."""
    pages = []
    for page in DOCUMENTS[name]:
        await asyncio.sleep(PAGE_PAUSE)
        pages.append(page)
    return " ".join(pages)


def calculate(expression: str) -> float:
    """Evaluate an expression of numbers and + - * /."""
    return _value(ast.parse(expression, mode="eval").body)


def build_agent() -> Agent[None, str]:
    """Return the agent."""
    model = FunctionModel(stream_function=_respond, model_name="scripted-1")
    return Agent(model, name="research-agent", tools=[search, read_document, calculate])


async def _respond(messages: list[ModelMessage], _info: AgentInfo) -> AsyncIterator[Chunk]:
    turn = sum(message.kind == "response" for message in messages)
    async for chunk in _TURNS[turn](_results(messages)):
        yield chunk


async def _search_both(_results: dict[str, str]) -> AsyncIterator[Chunk]:
    async for word in _words_of("Two figures are needed: what the Rhine carries, and what the lake holds."):
        yield {0: DeltaThinkingPart(content=word)}
    async for word in _words_of("I look for both figures at once, the river's flow and the lake's volume."):
        yield word
    yield _call(2, "search", '{"query": "how much water the Rhine carries at Basel"}')
    yield _call(3, "search", '{"query": "how much water Lake Zurich holds"}')


async def _read(_results: dict[str, str]) -> AsyncIterator[Chunk]:
    async for word in _words_of("Both are in the library. Reading the two documents takes a moment, page after page."):
        yield word
    yield _call(1, "read_document", '{"name": "rhine"}')
    yield _call(2, "read_document", '{"name": "lake-zurich"}')


async def _compute(_results: dict[str, str]) -> AsyncIterator[Chunk]:
    text = (
        "The lake holds 3.9 billion cubic metres, and the river brings 1050 of them each second. "
        "Their ratio is a number of seconds, and a day has 86400 of those."
    )
    async for word in _words_of(text):
        yield word
    yield _call(1, "calculate", '{"expression": "3900000000 / 1050 / 86400"}')


async def _answer(results: dict[str, str]) -> AsyncIterator[Chunk]:
    days = float(results["calculate"])
    text = (
        f"It would take about {days:.0f} days. That is if nothing leaves the lake meanwhile, which the Limmat "
        "would see to, and if the Rhine flows as it does on average; in a dry autumn it brings half of that, "
        "and the same lake would take a whole season to fill."
    )
    async for word in _words_of(text):
        yield word


_TURNS = (_search_both, _read, _compute, _answer)


def _call(index: int, name: str, arguments: str) -> DeltaToolCalls:
    return {index: DeltaToolCall(name=name, json_args=arguments)}


async def _words_of(text: str) -> AsyncIterator[str]:
    for word in text.split():
        await asyncio.sleep(WORD_PAUSE)
        yield word + " "


def _results(messages: list[ModelMessage]) -> dict[str, str]:
    parts = [part for message in messages for part in message.parts if isinstance(part, ToolReturnPart)]
    return {part.tool_name: part.model_response_str() for part in parts}


def _words(text: str) -> set[str]:
    return {word.strip(".,").lower() for word in text.split()}


def _value(node: ast.expr) -> float:
    match node:
        case ast.Constant(value=int() | float() as number):
            return number
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
            return OPERATORS[type(op)](_value(left), _value(right))
    raise ValueError("only numbers and + - * / are supported")
