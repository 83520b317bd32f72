"""What people read, built from the contract's messages."""

import typing
from datetime import timedelta

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from pydantic import ValidationError

from lavant.client import Progress, Run, RunKind, RunState, Score, Step, StepKind, ToolCallOutcome, Usage
from lavant.client._wire.ids import new_id
from lavant.client._wire.json_text import checked, decode, encode
from lavant.client._wire.values import to_timedelta
from lavant.client.states import RoleName, RunKindName, RunStateName, StepKindName
from lavant.v1 import event_pb2, run_pb2

KINDS = {
    FieldDescriptor.TYPE_BOOL: "bool",
    FieldDescriptor.TYPE_DOUBLE: "double",
    FieldDescriptor.TYPE_STRING: "string",
}


def finished_run() -> run_pb2.Run:
    result = run_pb2.RunFinished(
        state=run_pb2.RUN_STATE_FAILED,
        output_json='{"rows": [1, 2]}',
        error=run_pb2.Error(message="no", type="ValueError", details_json="[1]"),
        usage=run_pb2.TokenUsage(input_tokens=3, cost_usd=0.5),
        duration=Duration(seconds=2),
    )
    return run_pb2.Run(
        run_id="r",
        kind=run_pb2.RUN_KIND_AGENT,
        name="n",
        state=run_pb2.RUN_STATE_FAILED,
        labels={"a": "b"},
        result=result,
    )


def every_field_set(message_type: type[Message]) -> Message:
    """Return a message with a value in each of its fields; of a oneof, in the first."""
    message = message_type()
    for field in message.DESCRIPTOR.fields:
        if field.containing_oneof and message.WhichOneof(field.containing_oneof.name):
            continue
        if field.message_type is not None:
            getattr(message, field.name).CopyFrom(every_field_set(type(getattr(message, field.name))))
        elif field.is_repeated:
            getattr(message, field.name).append("a")
        else:
            value = {"bool": False, "double": 0.5, "string": '"a"' if field.name.endswith("_json") else "a"}
            setattr(message, field.name, value[KINDS[field.type]])
    return message


def test_a_score_keeps_every_field_of_the_contract() -> None:
    given = every_field_set(event_pb2.Score)
    assert isinstance(given, event_pb2.Score)
    given.evaluator.ClearField("score_names")  # names all scores of an evaluator; this one has its own name
    assert Score.from_proto(given).to_proto() == given


def test_a_run_is_read() -> None:
    run = Run.from_proto(finished_run())
    assert (run.id, run.kind, run.state, run.labels) == ("r", RunKind.AGENT, RunState.FAILED, {"a": "b"})
    assert run.has_ended
    assert run.created is None
    assert run.result is not None
    assert run.result.output == {"rows": [1, 2]}
    assert run.result.duration == timedelta(seconds=2)
    assert run.result.error is not None
    assert (run.result.error.type, run.result.error.details) == ("ValueError", [1])
    assert run.result.usage == Usage(input_tokens=3, cost_usd=0.5)


def test_models_are_immutable() -> None:
    run = Run.from_proto(finished_run())
    with pytest.raises(ValidationError):
        run.name = "other"


@pytest.mark.parametrize("state", list(RunState))
def test_states_are_the_contracts(state: RunState) -> None:
    number = run_pb2.RunState.Value(f"RUN_STATE_{state.name}")
    assert Run.from_proto(run_pb2.Run(state=number)).state is state
    assert state.is_terminal == (number >= 10)


def test_no_value_of_the_contract_is_missing() -> None:
    assert len(RunState) == len(run_pb2.RunState.keys())
    assert len(RunKind) == len(run_pb2.RunKind.keys())
    assert len(StepKind) == len(event_pb2.StepKind.keys())
    assert len(ToolCallOutcome) == len(event_pb2.ToolCallOutcome.keys())


@pytest.mark.parametrize("kind", list(StepKind))
def test_kinds_of_steps_are_the_contracts(kind: StepKind) -> None:
    assert StepKind.from_number(event_pb2.StepKind.Value(f"STEP_KIND_{kind.name}")) is kind


def test_a_kind_of_the_future_is_unspecified() -> None:
    future = event_pb2.StepStarted.FromString(b"\x20\x63").kind
    assert StepKind.from_number(future) is StepKind.UNSPECIFIED


@pytest.mark.parametrize(
    ("words", "contract"),
    [
        (RunStateName, run_pb2.RunState),
        (RunKindName, run_pb2.RunKind),
        (StepKindName, event_pb2.StepKind),
        (RoleName, event_pb2.Role),
    ],
)
def test_words_are_the_contracts(words: object, contract: typing.Any) -> None:
    names = [name.removeprefix(contract.Name(0).removesuffix("UNSPECIFIED")) for name in contract.keys()]  # noqa: SIM118
    assert [*typing.get_args(words)] == [name.lower() for name in names[1:]]


def progress(**fields: typing.Any) -> Progress:
    return Progress.from_proto(event_pb2.ProgressReported(**fields))


def test_progress_is_read() -> None:
    usage = run_pb2.TokenUsage(input_tokens=1)
    read = progress(label="rows", completed=0, total=4, iteration=2, usage=usage)
    assert read == Progress(label="rows", completed=0, total=4, iteration=2, usage=Usage(input_tokens=1))
    assert progress(label="rows") == Progress(label="rows")


@pytest.mark.parametrize(
    ("fields", "fraction"),
    [
        ({"completed": 1, "total": 4}, 0.25),
        ({"completed": 0, "total": 4}, 0.0),
        ({"completed": 5, "total": 4}, 1.0),
        ({"completed": -1, "total": 4}, 0.0),
        ({"completed": 0, "total": 0}, None),
        ({"completed": 1}, None),
        ({"total": 4}, None),
    ],
)
def test_a_fraction_needs_a_total(fields: dict[str, int], fraction: float | None) -> None:
    assert progress(**fields).fraction == fraction


def test_steps_are_walked_parents_first() -> None:
    step = Step(id="a", children=(Step(id="b", children=(Step(id="c"),)), Step(id="d")))
    assert [each.id for each in step.walk()] == ["a", "b", "c", "d"]


def test_a_duration_beyond_pythons_is_its_longest() -> None:
    assert to_timedelta(Duration(seconds=315_576_000_000)) == timedelta(seconds=315_576_000_000)
    assert to_timedelta(Duration(seconds=2**60)) == timedelta.max
    assert to_timedelta(Duration(seconds=-(2**60))) == timedelta.min


def test_tokens_are_those_in_and_out() -> None:
    usage = Usage(input_tokens=3, output_tokens=2, cache_read_input_tokens=1, reasoning_output_tokens=1)
    assert usage.total_tokens == 5
    assert "total_tokens" not in usage.model_dump()


def test_usages_add_up() -> None:
    total = Usage(model="a", input_tokens=1, requests=1) + Usage(model="a", output_tokens=2, requests=1, cost_usd=0.1)
    assert total == Usage(model="a", input_tokens=1, output_tokens=2, requests=2, cost_usd=0.1)
    assert Usage.from_proto(total.to_proto()) == total
    assert (Usage(model="a") + Usage(model="b")).model == ""


def test_json_keeps_what_it_is_given() -> None:
    assert decode(encode({"b": 1, "a": 2**60})) == {"b": 1, "a": 2**60}
    assert encode(float("nan")) == "null"
    assert decode("") is None
    assert decode("not json") == "not json"


def test_malformed_arguments_stay_readable() -> None:
    assert checked('{"a": 1}') == '{"a": 1}'
    assert decode(checked('{"a": ')) == '{"a": '


def test_ids_sort_by_time() -> None:
    ids = [new_id(milliseconds * 1_000_000) for milliseconds in range(1, 50)]
    assert ids == sorted(ids)
    assert ids[0][14] == "7"
    assert ids[0][19] in "89ab"
