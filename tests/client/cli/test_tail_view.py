"""What `lavant tail` makes of events, on either screen."""

import io
from datetime import UTC, datetime, timedelta
from typing import get_args

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from rich.console import Console

from lavant.client import Event, Run, RunResult
from lavant.client.cli.cells import cells
from lavant.client.cli.tail.model import Status
from lavant.client.cli.tail.screen import PlainScreen
from lavant.client.cli.tail.terminal import TerminalScreen
from lavant.client.cli.tail.view import TailView
from lavant.client.events import wrap
from lavant.v1 import event_pb2 as pb
from lavant.v1 import run_pb2

START = datetime(2026, 1, 1, tzinfo=UTC)
HOSTILE = "\x1b[31mred\x1b]0;t\x07 \x9b2J\b\x00\u202e\u2066 two\r\nlines \u2028x\tend " + "東京👩‍💻" * 30
KINDS = pb.StepKind


class Events:
    """Makes a run's events, a second apart."""

    def __init__(self) -> None:
        self.sequence = 0

    def __call__(self, step_id: str = "", **payload: Message) -> Event:
        self.sequence += 1
        event = pb.Event(sequence=self.sequence, step_id=step_id, **payload)  # type: ignore[arg-type]
        event.event_time.FromDatetime(START + timedelta(seconds=self.sequence))
        return wrap(event)

    def text(self, message_id: str, text: str, step_id: str = "") -> Event:
        return self(step_id, text_delta=pb.TextDelta(message_id=message_id, text=text))

    def end(self, message_id: str, *parts: pb.MessagePart, step_id: str = "") -> Event:
        return self(step_id, message_finished=pb.MessageFinished(message_id=message_id, parts=parts))

    def step(self, step_id: str, name: str, kind: "pb.StepKind.ValueType", parent: str = "", attempt: int = 1) -> Event:
        started = pb.StepStarted(step_id=step_id, parent_step_id=parent, name=name, kind=kind, attempt=attempt)
        return self(parent, step_started=started)

    def step_end(self, step_id: str, **fields: object) -> Event:
        took = Duration(seconds=2)
        return self(step_finished=pb.StepFinished(step_id=step_id, duration=took, **fields))  # type: ignore[arg-type]

    def call(self, call_id: str, name: str, arguments: str = "{}", step_id: str = "") -> Event:
        call = pb.ToolCall(tool_call_id=call_id, tool_name=name, arguments_json=arguments)
        return self(step_id, tool_call_started=pb.ToolCallStarted(call=call))

    def call_end(self, call_id: str, step_id: str = "", **fields: object) -> Event:
        finished = pb.ToolCallFinished(tool_call_id=call_id, tool_name="late", **fields)  # type: ignore[arg-type]
        finished.outcome = finished.outcome or pb.ToolCallOutcome.TOOL_CALL_OUTCOME_SUCCEEDED
        return self(step_id, tool_call_finished=finished)


@pytest.fixture
def make() -> Events:
    """Makes events."""
    return Events()


def plain(events: list[Event], *, first: int = 1, joins_midway: bool = False) -> list[str]:
    """The lines that go into a pipe."""
    file = io.StringIO()
    view = TailView(PlainScreen(file), Status(), joins_midway=joins_midway)
    for event in events:
        (view.show if event.sequence >= first else view.skip)(event)
    return file.getvalue().splitlines()


def on_terminal(events: list[Event], width: int = 80) -> tuple[list[str], list[str]]:
    """The lines that stay in a terminal, and those of the live region below them before its end."""
    console = Console(width=width, height=40, file=io.StringIO(), force_terminal=True, record=True, _environ={})
    live = Status()
    with TerminalScreen(console, live, lambda: START.timestamp() + 60) as screen:
        view = TailView(screen, live)
        for event in events:
            view.show(event)
        screen.refresh()
        below = [row.plain.rstrip() for row in screen._rows()]
    return [line.rstrip() for line in console.export_text().rstrip("\n").splitlines()], below


def test_steps_are_nested_and_a_tools_step_is_its_call(make: Events) -> None:
    events = [
        make.step("a", "scout", KINDS.STEP_KIND_AGENT),
        make.step("m", "gpt-5", KINDS.STEP_KIND_MODEL_REQUEST, "a"),
        make.text("1", "I look.\nTwice.", "m"),
        make.end("1", step_id="m"),
        make.step_end("m", usage=run_pb2.TokenUsage(input_tokens=1000, output_tokens=2)),
        make.step("t", "search", KINDS.STEP_KIND_TOOL, "a"),
        make.call("c", "search", '{"q": "Oslo", "n": 5}', "t"),
        make.step("w", "inner", KINDS.STEP_KIND_WORKFLOW, "t"),
        make.step_end("w"),
        make.call_end("c", "t", result_json='"found"', duration=Duration(nanos=320_000_000)),
        make.step_end("t"),
        make.step_end("a", state=run_pb2.RUN_STATE_FAILED, error=run_pb2.Error(type="E", message="one\ntwo")),
    ]
    assert plain(events) == [
        "▸ scout  agent",
        "  I look.",
        "  Twice.",
        "",
        "  · gpt-5  1,000 tokens in · 2 out · 2.0 s",
        '  → search  q="Oslo" n=5',
        "    ▸ inner",
        "    ✓ inner  2.0 s",
        "  ✓ search  320 ms",
        "    └ found",
        "✗ scout  2.0 s",
        "  E: one",
        "  two",
    ]
    stays, below = on_terminal(events)
    assert [line.split("  ")[-1] if line.startswith("x") else " ".join(line.split()) for line in stays] == [
        " ".join(line.split()) for line in plain(events)
    ]
    assert below == []


def test_a_place_is_named_again_where_steps_alternate(make: Events) -> None:
    events = [
        make.step("a", "one", KINDS.STEP_KIND_AGENT),
        make.step("b", "two", KINDS.STEP_KIND_AGENT),
        make("a", custom=pb.CustomEvent(name="x")),
        make("a", custom=pb.CustomEvent(name="y")),
        make("b", custom=pb.CustomEvent(name="z")),
        make(custom=pb.CustomEvent(name="root")),
        make("b", custom=pb.CustomEvent(name="z")),
    ]
    expected = "▸ one  agent|▸ two  agent|┄ one|  · x|  · y|┄ two|  · z|· root|┄ two|  · z"
    assert plain(events) == expected.split("|")
    assert plain(events, first=4) == expected.split("|")[2:3] + expected.split("|")[4:]


def test_words_of_speakers_do_not_mix(make: Events) -> None:
    events = [
        make.text("1", "one "),
        make.text("2", "two "),
        make.text("1", "ein"),
        make.text("2", "zwei"),
        make.end("2"),
        make.end("1"),
    ]
    assert "".join(plain(events)).replace("\n", "") in ("one eintwo zwei", "one two zweiein")
    assert plain([*events[:4], events[5], events[4]]) == ["one ein", "", "two zwei"]
    long = [make.text("1", "a"), make.text("2", "b" * 2_001), make.text("1", "c"), make.end("2"), make.end("1")]
    assert plain(long) == ["a", "", "b" * 2_001, "", "c"]


def test_reasoning_is_apart_and_dim(make: Events) -> None:
    events = [make(reasoning_delta=pb.ReasoningDelta(message_id="1", text="Hm.")), make.text("1", "\n\nYes.")]
    assert plain(events) == ["Hm.", "", "Yes."]
    console = Console(width=80, file=io.StringIO(), force_terminal=True, record=True, _environ={})
    live = Status()
    with TerminalScreen(console, live, lambda: START.timestamp()) as screen:
        for event in events:
            view = TailView(screen, live)
            view.show(event)
            screen.end_text()
    assert "\x1b[2;3mHm.\x1b[0m\n\nYes.\n" in console.export_text(styles=True)


def test_a_message_is_shown_once(make: Events) -> None:
    whole = [pb.MessagePart(reasoning="Hm."), pb.MessagePart(text="Yes.")]
    assert plain([make.end("1", *whole)]) == ["Hm.", "", "Yes."]
    assert plain([make.text("1", "Yes."), make.end("1", *whole)]) == ["Yes."]
    assert plain([make.text("1", "s."), make.end("1", *whole)], joins_midway=True) == ["s."]
    assert plain([make.end("1", *whole)], joins_midway=True) == []
    assert plain([make(message_started=pb.MessageStarted(message_id="1")), make.end("1", *whole)], joins_midway=True)


def test_a_retry_is_shown(make: Events) -> None:
    events = [
        make.step("m", "gpt-5", KINDS.STEP_KIND_MODEL_REQUEST),
        make.text("1", "Half a sen", "m"),
        make.step("m", "gpt-5", KINDS.STEP_KIND_MODEL_REQUEST, attempt=2),
        make.text("2", "Whole.", "m"),
    ]
    assert plain(events) == ["Half a sen", "", "↻ gpt-5 attempt 2", "", "Whole."]


def test_outcomes_of_tools(make: Events) -> None:
    error = run_pb2.Error(type="ValueError", message="no")
    events = [
        make.call("1", "a", "not json"),
        make.call_end("1", outcome=pb.ToolCallOutcome.TOOL_CALL_OUTCOME_FAILED, error=error),
        make.call("2", "b", "[" * 5_000),
        make.call_end("2", outcome=pb.ToolCallOutcome.TOOL_CALL_OUTCOME_RETRY_REQUESTED, error=error),
        make.call_end("3", outcome=pb.ToolCallOutcome.TOOL_CALL_OUTCOME_DENIED),
    ]
    lines = [line[:40] for line in plain(events)]
    assert lines[:3] == ["→ a  not json", "✗ a", "  ValueError: no"]
    assert lines[4:] == ["↻ b", "  ValueError: no", "✗ late  denied", "  no reason was given"]


def test_running_steps_are_shown_below(make: Events) -> None:
    calls = [make.call(str(number), "search", f'{{"n": {number}}}') for number in range(10)]
    run_started = make(run_started=pb.RunStarted())
    progress = [
        make(progress_reported=pb.ProgressReported(label="pages", completed=5, total=10)),
        make(progress_reported=pb.ProgressReported(iteration=3, usage=run_pb2.TokenUsage(input_tokens=7))),
    ]
    stays, below = on_terminal([run_started, *calls, make.call_end("9"), *progress, make.text("1", "half a")])
    assert [line.split("  ")[0] for line in stays[:1]] == ["✓ search"]
    assert below[:2] == ["half a", ""]
    assert [line[1:13] for line in below[2:10]] == [f" search  n={number}" for number in range(1, 9)]
    assert all(line.endswith(" s") and len(line) == 80 for line in below[2:10])
    assert below[10:12] == ["  and 1 more", "pages  " + "━" * 15 + "─" * 15 + "  5/10  50%"]
    assert below[12][1:].startswith(" running  49.0 s")
    assert below[12].endswith("round 3 · 7 tokens in · 0 out")


def test_progress_in_a_pipe_has_a_line_per_tenth(make: Events) -> None:
    events = [
        make(progress_reported=pb.ProgressReported(label="pages", completed=completed, total=200))
        for completed in range(201)
    ]
    lines = plain(events)
    assert lines[:2] == ["· pages  0/200  0%", "· pages  20/200  10%"]
    assert lines[-1] == "✓ pages  200/200  100%"
    assert len(lines) == 11
    assert on_terminal(events)[0] == ["✓ pages  200/200  100%"]


def test_alerts(make: Events) -> None:
    over = pb.AlertChanged(rule_id="quality", alert="low", value=0.71, threshold=0.8, count=40)
    firing = pb.AlertChanged(firing=True, message="correctness fell")
    firing.MergeFrom(over)
    events = [
        make(alert_changed=firing),
        make(alert_changed=over),
    ]
    assert plain(events) == [
        "! quality low firing  0.71 of 40 scores, threshold 0.8",
        "  └ correctness fell",
        "✓ quality low over  0.71 of 40 scores, threshold 0.8",
    ]


def test_an_evaluation(make: Events) -> None:
    plan = pb.EvaluationPlan(dataset="capitals", row_count=4, evaluators=[pb.Evaluator(name="exact")])
    broken = run_pb2.Error(type="E", message="broke")
    rows = [
        pb.RowFinished(row_id="oslo", scores=[pb.Score(name="exact", number=1), pb.Score(name="kind", passed=True)]),
        pb.RowFinished(row_id="rome", scores=[pb.Score(name="kind", passed=False), pb.Score(name="t", label="x")]),
        pb.RowFinished(row_id="bern", iteration=2, error=broken, duration=Duration(seconds=1)),
        pb.RowFinished(row_id="kiel", scores=[pb.Score(name="exact", error=broken)]),
    ]
    events = [make(run_started=pb.RunStarted(evaluation=plan)), *[make(row_finished=row) for row in rows]]
    lines = on_terminal(events)[0]
    assert [" ".join(line.split()) for line in lines] == [
        "· dataset capitals · 4 rows · exact",
        "✓ oslo exact 1 kind ✓",
        "! rome kind ✗ t x",
        "✗ bern #2 1.0 s",
        "E: broke",
        "✗ kiel exact error",
        "exact: E: broke",
        "✓ rows 4/4 100%",
    ]
    assert on_terminal(events[:3])[1][1] == "rows  " + "━" * 15 + "─" * 15 + "  2/4  50%"
    reports = [make(progress_reported=pb.ProgressReported(label="rows", completed=n, total=4)) for n in range(1, 5)]
    told = [event for pair in zip(events[1:], reports, strict=True) for event in pair]
    for screen in (plain, lambda shown: on_terminal(shown)[0]):
        assert sum("4/4" in line for line in screen([events[0], *told])) == 1
    file = io.StringIO()
    view = TailView(PlainScreen(file), Status())
    summary = run_pb2.EvaluationSummary(
        rows_succeeded=2, rows_failed=1, mean_scores={"exact": 0.5, "seconds": 12}, accuracy=1
    )
    view.end(
        RunResult.from_proto(run_pb2.RunFinished(state=run_pb2.RUN_STATE_SUCCEEDED, evaluation=summary), run_id="r"), 5
    )
    assert file.getvalue().splitlines() == [
        "Σ 2 rows scored · 1 failed",
        "    accuracy  ━━━━━━━━━━━━━━━━━━━━  1",
        "    exact     ━━━━━━━━━━──────────  0.5",
        "    seconds                         12",
        "",
        "✓ succeeded",
    ]


def hostile(message: Message, depth: int = 3) -> None:
    """Fill in all texts of a message."""
    for field in message.DESCRIPTOR.fields:
        repeated = field.is_repeated
        if field.type == FieldDescriptor.TYPE_STRING and field.name not in {"step_id", "parent_step_id"}:
            text = '{"' + field.name + '": "x"}' if field.name == "output_json" else HOSTILE
            if repeated:
                getattr(message, field.name).append(text)
            else:
                setattr(message, field.name, text)
        elif (
            field.type == FieldDescriptor.TYPE_MESSAGE
            and depth
            and "map" not in str(type(getattr(message, field.name))).lower()
        ):
            inner = getattr(message, field.name)
            hostile(inner.add() if repeated else inner, depth - 1)
        elif field.type == FieldDescriptor.TYPE_INT64:
            setattr(message, field.name, 2**62)


@pytest.mark.parametrize("width", [1, 7, 80, 300])
def test_hostile_text_is_neutral_in_every_field(make: Events, width: int) -> None:
    events = []
    for kind in get_args(Event):
        event = make()
        if kind.type != "unknown":
            getattr(event.proto, kind.type).SetInParent()
            hostile(getattr(event.proto, kind.type))
        events.append(wrap(event.proto))
    shown, below = on_terminal(events, width)
    in_pipe = plain(events)
    assert not [c for c in "".join(in_pipe + shown + below) if not c.isprintable()]
    assert all(cells(line) <= max(width, 2) for line in shown + below)
    if width == 80:
        assert sum("�[31mred" in line for line in in_pipe) >= 20


def test_deep_nesting_is_no_harm(make: Events) -> None:
    events = [make.step(str(n), "deeper", KINDS.STEP_KIND_WORKFLOW, str(n - 1)) for n in range(1, 2_000)]
    assert len(plain(events)) == 1_999
    assert len(on_terminal(events)[0]) == 1_999


def test_a_header_says_whose_tail_it_is() -> None:
    file = io.StringIO()
    view = TailView(PlainScreen(file), Status())
    view.open(Run.from_proto(run_pb2.Run(run_id="r", name="a\x1bb", kind=run_pb2.RUN_KIND_EVALUATION)))
    assert file.getvalue() == "▶ a�b  evaluation  r\n"
