"""Steps as trees, one rule a test; logs of any shape are in test_steps_of_any_log.py."""

from collections.abc import Iterable
from datetime import timedelta

from lavant.client import ErrorInfo, Event, Step, ToolCallOutcome, Usage
from lavant.client._reading.steps import StepProjection
from lavant.client.states import RunState, StepKind
from lavant.v1.event_pb2 import Role
from support.client_events import began, called, ended, said


def given_by(steps: StepProjection, events: Iterable[Event]) -> list[Step]:
    return [step for event in events if (step := steps.add(event))]


def names(steps: Iterable[Step]) -> object:
    return {step.id: names(step.children) for step in steps}


def test_a_step_has_what_was_done_in_it() -> None:
    used = Usage(input_tokens=1)
    inner = [began("b", "a"), *said("b", "inner"), ended("b", "a", used, ValueError("no"))]
    events = [began("a"), *said("a", "outer"), *called("a", "1"), *inner, *said("a", " too"), ended("a")]
    child, step = given_by(StepProjection(), events)
    assert (step.name, step.kind, step.input, step.output) == ("A", StepKind.WORKFLOW, {"q": 1}, "out")
    assert (step.text, [call.id for call in step.tool_calls]) == ("outer too", ["1"])
    assert (step.state, step.error, step.usage) == (RunState.SUCCEEDED, None, None)
    assert step.duration == timedelta(seconds=0.5)
    assert (child.parent_id, child.text, child.usage) == ("a", "inner", used)
    assert (child.state, child.error) == (RunState.FAILED, ErrorInfo(message="no", type="ValueError"))
    assert [each.id for each in step.walk()] == ["a", "b"]
    assert step.children == (child,)


def test_a_step_follows_its_changes() -> None:
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


def test_unfinished_steps_come_as_trees_without_values_of_their_ends() -> None:
    steps = StepProjection()
    given_by(steps, [began("a"), began("b", "a"), began("c", "a"), ended("c", "a"), began("d")])
    assert names(steps.unfinished()) == {"a": {"b": {}, "c": {}}, "d": {}}
    told = [(step.state, step.error, step.usage, step.duration) for step in steps.unfinished()]
    assert told == [(None, None, None, None)] * 2


def test_a_child_that_ends_after_its_parent_is_given_by_itself_and_stays_below_it() -> None:
    steps = StepProjection()
    (parent,) = given_by(steps, [began("a"), began("b", "a"), ended("a")])
    assert [(each.id, each.state, each.text) for each in parent.children] == [("b", None, "")]
    assert names(steps.unfinished()) == {"b": {}}
    (child,) = given_by(steps, [*said("b", "late"), ended("b", "a")])
    assert (child.id, child.state, child.text) == ("b", RunState.SUCCEEDED, "late")
    (root,) = steps.roots()
    assert root.children == (child,)


def test_a_step_whose_beginning_was_not_seen_has_its_end() -> None:
    steps = StepProjection()
    inner = [*said("a", "x"), began("c", "a"), ended("c", "a"), ended("b", "a")]
    given = given_by(steps, [*inner, ended("a"), ended("d", "d")])
    assert [(step.id, step.parent_id) for step in given] == [("c", "a"), ("b", "a"), ("a", ""), ("d", "")]
    assert [(step.output, step.attempt, step.children) for step in given] == [("out", 1, ())] * 4
    assert steps.roots() == tuple(given)


def test_what_an_earlier_attempt_began_is_given_no_more() -> None:
    steps = StepProjection()
    first = [began("a"), *said("a", "lost", "m")[:2], began("b", "a"), began("c", "b"), *called("b", "1")]
    late = [*said("b", "lost"), ended("c", "b"), ended("b", "a")]
    assert given_by(steps, [*first, began("a", attempt=2), *late, *said("a", "kept", "m")]) == []
    assert names(steps.unfinished()) == {"a": {}}
    (step,) = given_by(steps, [ended("a")])
    assert (step.attempt, step.text, step.children) == (2, "kept", ())


def test_an_attempt_that_ended_is_replaced_within_its_parent() -> None:
    steps = StepProjection()
    events = [began("a"), began("b", "a"), ended("b", "a"), began("b", "a", 2), ended("b", "a"), ended("a")]
    assert [(step.id, step.attempt) for step in given_by(steps, events)] == [("b", 1), ("b", 2), ("a", 1)]
    assert [(step.id, step.attempt) for step in steps.roots()[0].walk()] == [("a", 1), ("b", 2)]


def test_a_retry_elsewhere_leaves_its_first_place() -> None:
    steps = StepProjection()
    given_by(steps, [began("a"), began("b"), began("c", "a")])
    assert names(steps.roots()) == {"a": {"c": {}}, "b": {}}
    steps.add(began("c", "b", 2))
    assert names(steps.roots()) == {"a": {}, "b": {"c": {}}}


def test_only_text_of_assistants_counts() -> None:
    asked = [*said("a", "before", role=Role.ROLE_USER)[3:], *said("a", "what?", role=Role.ROLE_USER)]
    (step,) = given_by(StepProjection(), [began("a"), *asked, *said("a", "cold"), ended("a")])
    assert step.text == "cold"


def test_a_message_has_the_text_of_its_end_or_without_one_of_its_deltas() -> None:
    steps = StepProjection()
    start, _, _, finish = said("a", "one ")
    given_by(steps, [began("a"), start])
    assert steps.roots()[0].text == ""
    given_by(steps, [finish, *said("a", "two")[:2]])
    assert steps.roots()[0].text == "one t"


def test_a_message_that_began_before_the_first_event_counts() -> None:
    (step,) = given_by(StepProjection(), [began("a"), *said("a", "xy")[2:], ended("a")])
    assert step.text == "xy"


def test_a_call_that_has_not_ended_has_no_outcome_yet() -> None:
    start, finish = called("a", "1")
    steps = StepProjection()
    (step,) = given_by(steps, [began("a"), start, ended("a")])
    assert [(call.id, call.outcome) for call in step.tool_calls] == [("1", None)]
    steps.add(finish)
    assert [(call.arguments, call.outcome) for call in steps.roots()[0].tool_calls] == [
        ({"n": 1}, ToolCallOutcome.SUCCEEDED)
    ]


def test_a_call_whose_start_was_not_read_is_in_the_step_of_its_end() -> None:
    (step,) = given_by(StepProjection(), [began("a"), called("a", "1")[1], ended("a")])
    assert [(call.id, call.name, call.arguments) for call in step.tool_calls] == [("1", "look", None)]


def test_steps_that_are_done_are_forgotten_unless_they_are_kept() -> None:
    steps = StepProjection(keep=False)
    events = [began("a"), began("b", "a"), ended("b", "a"), ended("a"), ended("unseen"), began("c")]
    assert [step.id for step in given_by(steps, events)] == ["b", "a", "unseen"]
    assert names(steps.roots()) == {"c": {}}


def test_steps_may_lie_deeper_than_pythons_stack() -> None:
    steps = StepProjection()
    depth = 2_000
    parents = ["", *(f"s{number}" for number in range(depth - 1))]
    given_by(steps, [began(f"s{number}", parent) for number, parent in enumerate(parents)])
    (root,) = steps.unfinished()
    assert sum(1 for _ in root.walk()) == depth
    done = given_by(steps, [ended(f"s{number}", parents[number]) for number in reversed(range(depth))])
    assert [step.id for step in done] == [f"s{number}" for number in reversed(range(depth))]
