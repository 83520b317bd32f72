"""What a run did, as text for a judge. Pure."""

from collections.abc import Iterator

from pydantic_evals.evaluators import EvaluatorContext
from pydantic_evals.otel.span_tree import SpanNode, SpanTree

_LONGEST_VALUE = 1_000
_DEEPEST_INDENT = 20


def transcript(context: EvaluatorContext[object, object, object], longest: int) -> str:
    """Tell how the run ended, and what it did, a line for each span; at most `longest` characters of these."""
    lines = shortened("\n".join(_lines(context.span_tree)), longest)
    return f"How the run ended: {_ending(context)}\n\nWhat it did, step by step:\n{lines}"


def shortened(text: str, longest: int) -> str:
    """Return text, of one that is too long its beginning and its end."""
    if len(text) <= longest:
        return text
    kept = longest // 2
    return f"{text[:kept]} [... {len(text) - 2 * kept} characters left out ...] {text[-kept:]}"


def _ending(context: EvaluatorContext[object, object, object]) -> str:
    state, error = context.attributes.get("state", "unknown"), context.attributes.get("error")
    return f"{state}, {error['type']}: {error['message']}" if error else str(state)


def _lines(tree: SpanTree) -> Iterator[str]:
    waiting = [(root, 0) for root in reversed(tree.roots)]
    while waiting:
        node, depth = waiting.pop()
        yield f"{'  ' * min(depth, _DEEPEST_INDENT)}- {_line(node)}"
        waiting.extend((child, depth + 1) for child in reversed(node.children))


def _line(node: SpanNode) -> str:
    parts = [f"{node.name} ({node.duration.total_seconds():.2f} s)"]
    if arguments := node.attributes.get("gen_ai.tool.call.arguments"):
        parts.append(f"with {shortened(str(arguments), _LONGEST_VALUE)}")
    if result := node.attributes.get("gen_ai.tool.call.result"):
        parts.append(f"gave {shortened(str(result), _LONGEST_VALUE)}")
    if node.status == "error":
        message = node.attributes.get("error.message")
        parts.append(f"failed: {shortened(str(message), _LONGEST_VALUE)}" if message else "did not end well")
    return ", ".join(parts)
