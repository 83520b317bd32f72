"""Steps out of logs of any shape: nested, beside each other, tried again, read in part."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from lavant.client import Event, Step
from lavant.client._reading.recording import RecordingProjection
from lavant.client._reading.steps import StepProjection
from lavant.client.models import RunResult
from lavant.client.states import RunState
from support.client_events import began, called, ended, said


@dataclass
class Plan:
    """A step to be recorded: what the tree must hold of it, and how often it fails before."""

    text: str = ""
    calls: int = 0
    failures: int = 0
    children: list["Plan"] = field(default_factory=list)
    id: str = ""
    parent_id: str = ""

    def numbered(self, step_id: str, parent_id: str = "") -> "Plan":
        """Name it and those in it."""
        self.id, self.parent_id = step_id, parent_id
        for number, child in enumerate(self.children):
            child.numbered(f"{step_id}.{number}", step_id)
        return self


Told = tuple[str, str, str, list[str], int, list["Told"]]


def plans_within(children: st.SearchStrategy[list[Plan]]) -> st.SearchStrategy[Plan]:
    few = st.integers(0, 2)
    return st.builds(Plan, text=st.text("xy", max_size=3), calls=few, failures=few, children=children)


PLANS = st.recursive(plans_within(st.just([])), lambda plans: plans_within(st.lists(plans, max_size=3)), max_leaves=8)


def attempts(plan: Plan, draw: st.DrawFn) -> Iterator[Event]:
    """The log of a step; those of its children, and what is done in it, are mixed at random."""
    for failure in range(1, plan.failures + 1):
        yield began(plan.id, plan.parent_id, failure)
        doomed = f"{plan.id}.doomed{failure}"
        yield from [*said(plan.id, "wrong", f"{plan.id}!{failure}"), began(doomed, plan.id), *said(doomed, "wrong")]
        yield from called(plan.id, f"{plan.id}!{failure}")
        if draw(st.booleans()):
            yield ended(doomed, plan.id)
        if draw(st.booleans()):
            yield ended(plan.id, plan.parent_id)
    yield began(plan.id, plan.parent_id, plan.failures + 1)
    sources: list[Iterator[Event]] = [attempts(child, draw) for child in plan.children]
    sources += [iter(called(plan.id, f"{plan.id}#{number}")) for number in range(plan.calls)]
    sources.append(iter(said(plan.id, plan.text)))
    yield from mixed(sources, draw)
    yield ended(plan.id, plan.parent_id)


def mixed(sources: list[Iterator[Event]], draw: st.DrawFn) -> Iterator[Event]:
    while sources:
        source = sources[draw(st.integers(0, len(sources) - 1))]
        if (event := next(source, None)) is None:
            sources.remove(source)
        else:
            yield event


@st.composite
def logs(draw: st.DrawFn) -> tuple[list[Plan], list[Event]]:
    plans = [plan.numbered(f"s{number}") for number, plan in enumerate(draw(st.lists(PLANS, max_size=3)))]
    return plans, list(mixed([attempts(plan, draw) for plan in plans], draw))


def essence(step: Step) -> Told:
    calls = sorted(call.id for call in step.tool_calls)
    return step.id, step.parent_id, step.text, calls, step.attempt, sorted(map(essence, step.children))


def planned(plan: Plan) -> Told:
    calls = [f"{plan.id}#{number}" for number in range(plan.calls)]
    return plan.id, plan.parent_id, plan.text, calls, plan.failures + 1, [planned(child) for child in plan.children]


@given(logs())
def test_the_trees_are_those_that_were_planned(log: tuple[list[Plan], list[Event]]) -> None:
    plans, events = log
    steps = StepProjection()
    last_given: dict[str, Step] = {}
    for event in events:
        steps.roots()  # steps that are read in between must not be cached when they change
        if step := steps.add(event):
            last_given[step.id] = step
    trees = [planned(plan) for plan in plans]
    assert sorted(map(essence, steps.roots())) == trees
    assert [essence(last_given[plan.id]) for plan in plans] == trees
    assert steps.unfinished() == ()
    assert all(each.state is RunState.SUCCEEDED for root in steps.roots() for each in root.walk())


@given(logs(), st.data())
def test_any_part_of_a_log_in_any_order_is_accepted(log: tuple[list[Plan], list[Event]], data: st.DataObject) -> None:
    _, events = log
    part = data.draw(st.lists(st.sampled_from(events), max_size=40)) if events else []
    looked_at, only_fed, recorded = StepProjection(), StepProjection(), RecordingProjection()
    for event in part:
        looked_at.add(event)
        looked_at.roots()
        only_fed.add(event)
        recorded.add(event)
    result = RunResult(run_id="r", state=RunState.SUCCEEDED)
    assert looked_at.roots() == only_fed.roots() == recorded.recording(result).steps
    unfinished = {each.id for step in only_fed.unfinished() for each in step.walk()}
    assert unfinished <= {each.id for root in only_fed.roots() for each in root.walk()}


@given(logs(), st.integers(0, 40))
def test_a_log_read_from_the_middle_gives_every_end(log: tuple[list[Plan], list[Event]], skipped: int) -> None:
    rest = log[1][skipped:]
    steps = StepProjection()
    given_ids = [step.id for event in rest if (step := steps.add(event))]
    assert given_ids == [event.data.step_id for event in rest if event.type == "step_finished"]
    told_steps = [each for root in steps.roots() for each in root.walk()]
    # Whose earlier attempt began before what was read is not known: what that one began stays, without an end.
    assert all(each.state is RunState.SUCCEEDED for each in told_steps if "doomed" not in each.id)
