"""What people read, built from the contract's messages."""

from datetime import timedelta

import pytest
from google.protobuf.duration_pb2 import Duration
from pydantic import ValidationError

from lavant.client import Run, RunKind, RunState, ToolCallOutcome, Usage
from lavant.client._ids import new_id
from lavant.client._json import checked, decode, encode
from lavant.v1 import event_pb2, run_pb2


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
    assert len(ToolCallOutcome) == len(event_pb2.ToolCallOutcome.keys())


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
