"""Steps out of logs of any shape: beside each other, tried again, late, read in part."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from lavant.client import Event, Step, ToolCallOutcome, Usage, _payloads
from lavant.client._events import wrap
from lavant.client._message import MessageDraft
from lavant.client._models import RunResult
from lavant.client._recording import Recording, RecordingProjection
from lavant.client._states import RunState
from lavant.client._steps import StepProjection
from lavant.v1 import event_pb2
from lavant.v1.event_pb2 import Role

AGENT = event_pb2.STEP_KIND_AGENT


def began(step: str, parent: str = "", attempt: int = 1) -> Event:
    return wrap(_payloads.step_started(step, parent, step, AGENT, None, attempt))


def ended(step: str, parent: str = "", usage: Usage | None = None) -> Event:
    return wrap(_payloads.step_finished(step, parent, None, None, usage, 0.5))


def said(step: str, text: str, message_id: str = "", role: "Role.ValueType" = Role.ROLE_ASSISTANT) -> list[Event]:
    draft = MessageDraft(message_id or f"{step}:{text}", role)
    return within(step, draft.start(), draft.text(text[:1]), draft.text(text[1:]), draft.finish())


def called(step: str, call_id: str) -> list[Event]:
    call = _payloads.tool_call(call_id, "look", {"n": 1})
    finished = _payloads.tool_call_finished(call, event_pb2.TOOL_CALL_OUTCOME_SUCCEEDED, 1)
    return within(step, _payloads.tool_call_started(call), finished)


def within(step: str, *protos: event_pb2.Event) -> list[Event]:
    for proto in protos:
        proto.step_id = step
    return [wrap(proto) for proto in protos]


def given_by(steps: StepProjection, events: Iterable[Event]) -> list[Step]:
    return [step for event in events if (step := steps.add(event))]


def test_a_child_that_ends_after_its_parent_is_given_by_itself_and_stays_below_it() -> None:
    steps = StepProjection()
    parent, child = given_by(steps, [began("a"), began("b", "a"), ended("a"), *said("b", "late"), ended("b", "a")])
    assert [(each.id, each.state, each.text) for each in parent.children] == [("b", None, "")]
    assert (child.id, child.state, child.text) == ("b", RunState.SUCCEEDED, "late")
    (root,) = steps.roots()
    assert root.children == (child,)


def test_what_never_ends_below_a_step_that_did_is_unfinished() -> None:
    steps = StepProjection()
    given_by(steps, [began("a"), began("b", "a"), ended("a")])
    assert [step.id for step in steps.unfinished()] == ["b"]


def test_a_call_that_has_not_ended_has_no_outcome_yet() -> None:
    start, finish = called("a", "1")
    steps = StepProjection()
    (step,) = given_by(steps, [began("a"), start, ended("a")])
    assert [(call.id, call.outcome) for call in step.tool_calls] == [("1", None)]
    steps.add(finish)
    assert steps.roots()[0].tool_calls[0].outcome is ToolCallOutcome.SUCCEEDED


def test_only_assistants_are_heard() -> None:
    steps = StepProjection()
    asked = said("a", "what?", role=Role.ROLE_USER)
    (step,) = given_by(steps, [began("a"), *asked, *said("a", "cold"), ended("a")])
    assert step.text == "cold"


def test_a_message_without_deltas_or_without_its_end_has_its_text() -> None:
    start, _, _, finish = said("a", "one ")
    steps = StepProjection()
    (step,) = given_by(steps, [began("a"), start, finish, *said("a", "two")[:2], ended("a")])
    assert step.text == "one t"


def test_a_message_that_began_before_what_was_read_is_heard() -> None:
    steps = StepProjection()
    (step,) = given_by(steps, [began("a"), *said("a", "xy")[2:], ended("a")])
    assert step.text == "xy"


def test_what_an_earlier_attempt_began_is_given_no_more() -> None:
    steps = StepProjection()
    late = [*said("b", "lost"), ended("b", "a")]
    events = [began("a"), began("b", "a"), *called("b", "1"), began("a", attempt=2), *late, *said("a", "kept")]
    assert given_by(steps, events) == []
    assert [step.id for step in steps.unfinished()] == ["a"]
    (step,) = given_by(steps, [ended("a")])
    assert (step.attempt, step.text, step.children) == (2, "kept", ())


def test_an_attempt_that_ended_is_replaced_within_its_parent() -> None:
    steps = StepProjection()
    events = [began("a"), began("b", "a"), ended("b", "a"), began("b", "a", 2), ended("b", "a"), ended("a")]
    assert [(step.id, step.attempt) for step in given_by(steps, events)] == [("b", 1), ("b", 2), ("a", 1)]
    assert [step.attempt for step in steps.roots()[0].walk()] == [1, 2]


def test_what_is_told_of_a_step_follows_its_changes() -> None:
    steps = StepProjection()
    seen = []
    for event in [began("a"), began("b", "a"), *said("b", "cold"), *called("b", "1"), ended("b", "a"), ended("a")]:
        steps.add(event)
        ((_, *below),) = (list(root.walk()) for root in steps.roots())
        seen += [(each.text, [call.outcome for call in each.tool_calls], each.state) for each in below]
    done = ToolCallOutcome.SUCCEEDED
    assert seen == [
        ("", [], None),
        ("", [], None),
        ("c", [], None),
        ("cold", [], None),
        ("cold", [], None),
        ("cold", [None], None),
        ("cold", [done], None),
        ("cold", [done], RunState.SUCCEEDED),
        ("cold", [done], RunState.SUCCEEDED),
    ]


def test_the_end_of_a_message_tells_all_of_it() -> None:
    start, _, _, finish = said("a", "cold")
    steps = StepProjection()
    given_by(steps, [began("a"), start])
    assert steps.roots()[0].text == ""
    steps.add(finish)
    assert steps.roots()[0].text == "cold"


def test_a_retry_elsewhere_leaves_its_first_place() -> None:
    steps = StepProjection()
    given_by(steps, [began("a"), began("b"), began("c", "a")])
    assert [[each.id for each in root.walk()] for root in steps.roots()] == [["a", "c"], ["b"]]
    steps.add(began("c", "b", 2))
    assert [[each.id for each in root.walk()] for root in steps.roots()] == [["a"], ["b", "c"]]


def test_a_call_whose_start_was_not_read_is_in_the_step_of_its_end() -> None:
    steps = StepProjection()
    (step,) = given_by(steps, [began("a"), called("a", "1")[1], ended("a")])
    assert [(call.id, call.name, call.arguments) for call in step.tool_calls] == [("1", "look", None)]


def test_steps_that_are_done_are_forgotten_unless_they_are_kept() -> None:
    steps = StepProjection(keep=False)
    events = [began("a"), began("b", "a"), ended("b", "a"), ended("a"), ended("unseen"), began("c")]
    assert [step.id for step in given_by(steps, events)] == ["b", "a", "unseen"]
    assert [step.id for step in steps.roots()] == ["c"]


def test_steps_may_lie_deeper_than_pythons_stack() -> None:
    steps = StepProjection()
    depth = 2_000
    parents = ["", *(f"s{number}" for number in range(depth - 1))]
    given_by(steps, [began(f"s{number}", parent) for number, parent in enumerate(parents)])
    (root,) = steps.unfinished()
    assert sum(1 for _ in root.walk()) == depth
    done = given_by(steps, [ended(f"s{number}", parents[number]) for number in reversed(range(depth))])
    assert [step.id for step in done] == [f"s{number}" for number in reversed(range(depth))]


@dataclass
class Plan:
    """A step to be recorded: what the tree must tell of it, and what must be dropped."""

    id: str = ""
    text: str = ""
    calls: int = 0
    failures: int = 0
    children: list["Plan"] = field(default_factory=list)


def numbered(plan: Plan, step_id: str) -> Plan:
    plan.id = step_id
    for number, child in enumerate(plan.children):
        numbered(child, f"{step_id}.{number}")
    return plan


PLANS = st.recursive(
    st.builds(Plan, text=st.text("xy", max_size=3), calls=st.integers(0, 2), failures=st.integers(0, 2)),
    lambda children: st.builds(
        Plan,
        text=st.text("xy", max_size=3),
        calls=st.integers(0, 2),
        failures=st.integers(0, 2),
        children=st.lists(children, max_size=3),
    ),
    max_leaves=8,
)


def attempts(plan: Plan, parent: str, draw: st.DrawFn) -> Iterator[Event]:
    """The log of a step; those of its children, and what is done in it, are mixed at random."""
    for failure in range(1, plan.failures + 1):
        yield began(plan.id, parent, failure)
        doomed = f"{plan.id}.doomed{failure}"
        yield from [*said(plan.id, "wrong", f"{plan.id}!{failure}"), began(doomed, plan.id), *said(doomed, "wrong")]
        yield from called(plan.id, f"{plan.id}!{failure}")
        if draw(st.booleans()):
            yield ended(doomed, plan.id)
        if draw(st.booleans()):
            yield ended(plan.id, parent)
    yield began(plan.id, parent, plan.failures + 1)
    sources: list[Iterator[Event]] = [attempts(child, plan.id, draw) for child in plan.children]
    sources += [iter(called(plan.id, f"{plan.id}#{number}")) for number in range(plan.calls)]
    sources.append(iter(said(plan.id, plan.text)))
    yield from mixed(sources, draw)
    yield ended(plan.id, parent)


def mixed(sources: list[Iterator[Event]], draw: st.DrawFn) -> Iterator[Event]:
    while sources:
        source = sources[draw(st.integers(0, len(sources) - 1))]
        if (event := next(source, None)) is None:
            sources.remove(source)
        else:
            yield event


@st.composite
def logs(draw: st.DrawFn) -> tuple[list[Plan], list[Event]]:
    plans = [numbered(plan, f"s{number}") for number, plan in enumerate(draw(st.lists(PLANS, max_size=3)))]
    return plans, list(mixed([attempts(plan, "", draw) for plan in plans], draw))


def told(step: Step) -> object:
    children = sorted((told(child) for child in step.children), key=str)
    return step.id, step.text, sorted(call.id for call in step.tool_calls), step.attempt, children


def planned(plan: Plan) -> object:
    calls = [f"{plan.id}#{number}" for number in range(plan.calls)]
    return plan.id, plan.text, calls, plan.failures + 1, sorted((planned(child) for child in plan.children), key=str)


@given(logs())
def test_the_trees_are_those_that_were_planned(log: tuple[list[Plan], list[Event]]) -> None:
    plans, events = log
    steps = StepProjection()
    last_given: dict[str, Step] = {}
    for event in events:
        steps.roots()  # what is told in between must not stay when it changes
        if step := steps.add(event):
            last_given[step.id] = step
    assert sorted(map(told, steps.roots()), key=str) == [planned(plan) for plan in plans]
    assert [told(last_given[plan.id]) for plan in plans] == [planned(plan) for plan in plans]
    assert steps.unfinished() == ()
    assert all(each.state is RunState.SUCCEEDED for root in steps.roots() for each in root.walk())


@given(logs(), st.data())
def test_any_part_of_a_log_in_any_order_is_accepted(log: tuple[list[Plan], list[Event]], data: st.DataObject) -> None:
    _, events = log
    part = data.draw(st.lists(st.sampled_from(events), max_size=40)) if events else []
    looked_at, only_fed = StepProjection(), StepProjection()
    for event in part:
        looked_at.add(event)
        looked_at.roots()
        only_fed.add(event)
    assert looked_at.roots() == only_fed.roots() == recorded(part).steps
    unfinished = {each.id for step in only_fed.unfinished() for each in step.walk()}
    assert unfinished <= {each.id for root in only_fed.roots() for each in root.walk()}


@given(logs(), st.integers(0, 40))
def test_a_log_read_from_the_middle_gives_every_end(log: tuple[list[Plan], list[Event]], skipped: int) -> None:
    plans, events = log
    rest = events[skipped:]
    last = {event.data.step_id for event in rest if event.type == "step_finished"}
    given_ids = {step.id for step in given_by(StepProjection(), rest)}
    assert given_ids <= last
    assert {plan.id for plan in plans} & last <= given_ids


def recorded(events: Iterable[Event], usage: Usage | None = None) -> Recording:
    projection = RecordingProjection()
    for event in events:
        projection.add(event)
    return projection.recording(RunResult(run_id="r", state=RunState.SUCCEEDED, usage=usage))


def test_a_recording_has_what_was_said_and_called_outside_of_steps() -> None:
    start, _ = called("", "2")
    recording = recorded([*said("", "It is "), *called("", "1"), start, *said("", "cold.")])
    assert (recording.run_id, recording.text, recording.steps) == ("r", "It is cold.", ())
    assert [(call.id, call.outcome) for call in recording.tool_calls] == [
        ("1", ToolCallOutcome.SUCCEEDED),
        ("2", None),
    ]


def test_usage_is_the_runs_or_that_of_its_steps() -> None:
    events = [
        began("a"),
        began("b", "a"),
        ended("b", "a", Usage(input_tokens=2)),
        ended("a", "", Usage(input_tokens=1)),
    ]
    assert recorded(events).usage == Usage(input_tokens=3)
    assert recorded(events, Usage(input_tokens=7)).usage == Usage(input_tokens=7)
    assert recorded([]).usage == Usage()


def test_a_recording_is_json_without_its_events() -> None:
    recording = recorded([began("a"), *said("a", "cold"), *called("a", "1"), ended("a")])
    again = Recording.model_validate({**recording.model_dump(), "events": ()})
    assert again.steps == recording.steps
    assert '"events"' not in recording.model_dump_json()
    assert "Event " not in repr(recording)
