"""Front ends that read a run in their own format, as strict as the libraries for them."""

import json
from collections.abc import Iterable
from typing import Any

from lavant.server.http.formats import FORMATS
from lavant.v1.event_pb2 import Event
from lavant.v1.run_pb2 import Run


class AgUiFrontEnd:
    """Reads AG-UI events, by the rules of the verifier of @ag-ui/client and of its schemas."""

    def __init__(self) -> None:
        self.text = ""
        self.arguments: dict[str, str] = {}
        self.results: list[tuple[str, str]] = []
        self.end = ""
        self._open: dict[str, set[str]] = {"message": set(), "call": set(), "reasoning": set(), "span": set()}
        self._steps: set[str] = set()

    def read(self, data: dict[str, Any]) -> None:
        """Read an event."""
        kind = data["type"]
        assert all(value is not None for name, value in data.items() if name not in ("value", "snapshot")), data
        assert not self.end, f"{kind} after {self.end}"
        match kind.split("_"):
            case ["TEXT", "MESSAGE", moment]:
                self._move("message", moment, data["messageId"])
                self.text += data.get("delta", "")
            case ["TOOL", "CALL", "RESULT"]:
                self.results.append((data["toolCallId"], data["content"]))
            case ["TOOL", "CALL", moment]:
                self._move("call", moment, data["toolCallId"])
                assert moment != "START" or "toolCallName" in data
                known = self.arguments.setdefault(data["toolCallId"], "")
                self.arguments[data["toolCallId"]] = known + data.get("delta", "")
            case ["REASONING", "MESSAGE", moment]:
                self._move("reasoning", moment, data["messageId"])
            case ["REASONING", moment]:
                self._move("span", moment, data["messageId"])
            case ["STEP", "STARTED"]:
                assert data["stepName"] not in self._steps
                self._steps.add(data["stepName"])
            case ["STEP", "FINISHED"]:
                self._steps.remove(data["stepName"])
            case ["RUN", "STARTED"]:
                assert {"threadId", "runId"} <= data.keys()
            case ["RUN", "FINISHED" | "ERROR"]:
                self.end = kind
                assert not any([*self._open.values(), self._steps]), kind
            case _:
                assert kind in {"CUSTOM", "STATE_SNAPSHOT", "STATE_DELTA"}
        assert "delta" not in data or data["delta"] or kind == "STATE_DELTA", "an empty delta"

    def _move(self, what: str, moment: str, identity: str) -> None:
        ids = self._open[what]
        if moment == "START":
            assert identity not in ids
            ids.add(identity)
        else:
            assert identity in ids, f"{what} {identity} is not open"
            if moment == "END":
                ids.remove(identity)


class AiSdkFrontEnd:
    """Reads chunks of a UI message stream, by the rules of `processUIMessageStream` of the package `ai`."""

    def __init__(self) -> None:
        self.text = ""
        self.inputs: dict[str, Any] = {}
        self.results: list[str] = []
        self.end = ""
        self._open: set[tuple[str, str]] = set()
        self._streaming: set[str] = set()

    def read(self, data: dict[str, Any]) -> None:
        """Read a chunk."""
        kind: str = data["type"]
        assert not self.end, f"{kind} after {self.end}"
        if kind.startswith("data-"):
            assert "data" in data
            return
        match kind.split("-"):
            case ["text" | "reasoning" as part, "start"]:
                assert (part, data["id"]) not in self._open
                self._open.add((part, data["id"]))
            case ["text" | "reasoning" as part, "delta"]:
                assert (part, data["id"]) in self._open
                assert data["delta"]
                self.text += data["delta"] if part == "text" else ""
            case ["text" | "reasoning" as part, "end"]:
                self._open.remove((part, data["id"]))
            case ["tool", "input", "start"]:
                assert data["toolCallId"] not in self.inputs
                self._streaming.add(data["toolCallId"])
            case ["tool", "input", "delta"]:
                assert data["toolCallId"] in self._streaming
                assert data["inputTextDelta"]
            case ["tool", "input", "available"]:
                self.inputs[data["toolCallId"]] = data["input"]
            case ["tool", "output", _]:
                assert data["toolCallId"] in self.inputs
                self.results.append(data["toolCallId"])
            case ["finish" | "abort" | "error"]:
                self.end = kind
                assert not self._open
            case _:
                assert kind == "start"


FrontEnd = AgUiFrontEnd | AiSdkFrontEnd


def shown(name: str, events: Iterable[Event]) -> list[str]:
    """Return what a projection returns for a log."""
    projection = FORMATS[name](Run(run_id="run", conversation_id="talk"))
    return [text for event in events for text in projection.add(event)]


def front_end(name: str, data: Iterable[str]) -> FrontEnd:
    """Return a front end that has read all data."""
    reader: FrontEnd = AgUiFrontEnd() if name == "ag-ui" else AiSdkFrontEnd()
    for text in data:
        if text != "[DONE]":
            reader.read(json.loads(text))
    return reader
