"""What LangChain reports when something begins, in one shape."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self
from uuid import UUID

from lavant.client.integrations._reading import field
from lavant.contract.text import to_name, to_text

Kind = Literal["chain", "model_request", "tool", "retrieval"]

_HIDDEN_TAG = "langsmith:hidden"
_PLUMBING = ("prompt", "parser")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
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
    def read(cls, kind: Kind, serialized: object, given: object, said: Mapping[str, Any]) -> Self:
        """Read the arguments of an `on_..._start`. Never raises."""
        metadata = said.get("metadata")
        model = _model(metadata, said) if kind == "model_request" else ""
        name = model or to_name(said.get("name")) or to_name(field(serialized, "name")) or kind
        return cls(
            key=said["run_id"],
            parent=said.get("parent_run_id"),
            kind=kind,
            name=name,
            input=None if kind == "chain" and _is_untold(given, said) else given,
            is_shown=kind != "chain" or _is_shown(name, said),
            model=model,
            call_id=to_text(said.get("tool_call_id")),
            conversation_id=to_text(field(metadata, "thread_id")),
        )


def _is_shown(name: str, said: Mapping[str, Any]) -> bool:
    """Tell whether a reader wants to see a chain: a graph's node, a function, one with a name of its own."""
    tags = said.get("tags")
    is_hidden = type(tags) is list and any(to_text(tag) == _HIDDEN_TAG for tag in tags)
    return not is_hidden and to_text(said.get("run_type")) not in _PLUMBING and not name.startswith("Runnable")


def _is_untold(given: object, said: Mapping[str, Any]) -> bool:
    """Tell whether an input says nothing: one that streams in, or a graph's whole state, which outputs make up."""
    if field(said.get("metadata"), "langgraph_node") is not None:
        return True
    # LangChain's stand-in for an input that is not known yet is {"input": ""}.
    is_stand_in = type(given) is dict and len(given) == 1 and field(given, "input") is not None
    return "defers_inputs" in said and is_stand_in and to_text(field(given, "input")) == ""


def _model(metadata: object, said: Mapping[str, Any]) -> str:
    asked = field(said.get("invocation_params"), "model", "model_name")
    return to_name(field(metadata, "ls_model_name")) or to_name(asked)
