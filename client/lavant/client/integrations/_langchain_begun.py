"""What LangChain says when something begins, read into one shape."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self
from uuid import UUID

Kind = Literal["chain", "model_request", "tool", "retrieval"]

_HIDDEN_TAG = "langsmith:hidden"
_PLUMBING = ("prompt", "parser")
# What stands for an input that is not known yet, because it streams in.
_STREAMED_INPUT = {"input": ""}


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """A runnable, model, tool or retriever that began; `key` is LangChain's run id."""

    key: UUID
    parent: UUID | None
    kind: Kind
    name: str
    input: object
    is_shown: bool
    model: str = ""
    call_id: str = ""
    conversation_id: str = ""

    @classmethod
    def read(cls, kind: Kind, serialized: Mapping[str, Any] | None, given: object, said: Mapping[str, Any]) -> Self:
        """Read the arguments of an `on_..._start`."""
        metadata = said.get("metadata") or {}
        model = _model(metadata, said) if kind == "model_request" else ""
        name = model or said.get("name") or (serialized or {}).get("name") or kind
        return cls(
            key=said["run_id"],
            parent=said.get("parent_run_id"),
            kind=kind,
            name=str(name),
            input=None if kind == "chain" and _is_untold(given, said) else given,
            is_shown=kind != "chain" or _is_shown(str(name), said),
            model=model,
            call_id=said.get("tool_call_id") or "",
            conversation_id=str(metadata.get("thread_id") or ""),
        )


def _is_shown(name: str, said: Mapping[str, Any]) -> bool:
    """Tell whether a reader wants to see a chain: a graph's node, a function, one with a name of its own."""
    is_hidden = _HIDDEN_TAG in (said.get("tags") or ())
    return not is_hidden and said.get("run_type") not in _PLUMBING and not name.startswith("Runnable")


def _is_untold(given: object, said: Mapping[str, Any]) -> bool:
    """Tell whether an input says nothing: one that streams in, or a graph's whole state, which outputs make up."""
    return "langgraph_node" in (said.get("metadata") or {}) or ("defers_inputs" in said and given == _STREAMED_INPUT)


def _model(metadata: Mapping[str, Any], said: Mapping[str, Any]) -> str:
    parameters = said.get("invocation_params") or {}
    return str(metadata.get("ls_model_name") or parameters.get("model") or parameters.get("model_name") or "")
