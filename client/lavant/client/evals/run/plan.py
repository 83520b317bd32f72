"""The plan of a dataset's evaluation, and the check that a continued evaluation has not changed."""

import re
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from pydantic_evals import Case, Dataset
from pydantic_evals.evaluators import Evaluator

from lavant.client._wire import json_text as _json
from lavant.client.errors import EvaluationChanged
from lavant.client.evals.scoring import direction_of
from lavant.client.evaluations import Row
from lavant.contract.json_values import bounded_text
from lavant.contract.text import to_text
from lavant.v1 import event_pb2
from lavant.v1.event_pb2 import EvaluationPlan, Event

Key = tuple[str, int]

_LONGEST_ID = 128
# Of the input, the output and the expected output, each; with the scores they fit into an event.
_LARGEST = 192 << 10
_LARGEST_CONFIG = 8 << 10
# The default repr has an address, which differs in every process.
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedRow:
    """A case in one iteration. `case` is a copy of `original`, the dataset's.

    `directions` has each evaluator's `higher_is_better` by its serialized name.
    """

    key: Key
    case: Case[Any, Any, Any]
    original: Case[Any, Any, Any]
    input_json: str
    expected_json: str
    directions: Mapping[str, bool | None]


@dataclass(slots=True)
class Stored:
    """The stored part of an evaluation: its plan, and the event of each row."""

    plan: EvaluationPlan | None = None
    events: dict[Key, Event] = field(default_factory=dict)

    @property
    def rows(self) -> dict[Key, Row]:
        """The rows, by key."""
        return {key: Row.from_proto(event.row_finished) for key, event in self.events.items()}


def plan_rows(
    dataset: Dataset[Any, Any, Any], iterations: int, evaluators: Sequence[Evaluator[Any, Any, Any]]
) -> list[PlannedRow]:
    """Return all rows. Raises ValueError for two cases of one name."""
    rows: dict[Key, PlannedRow] = {}
    for number, case in enumerate(dataset.cases, 1):
        input_json, expected_json = value_text(case.inputs), optional_text(case.expected_output)
        row_id = _row_id(case, number, input_json)
        if (row_id, 1) in rows:
            raise ValueError(f"two cases are named {row_id!r}: rename one")
        directions = {one.get_serialization_name(): direction_of(one) for one in (*evaluators, *case.evaluators)}
        for iteration in range(1, iterations + 1):
            key = (row_id, iteration)
            rows[key] = PlannedRow(
                key=key,
                case=copy(case),
                original=case,
                input_json=input_json,
                expected_json=expected_json,
                directions=directions,
            )
    return list(rows.values())


def plan_of(
    dataset: Dataset[Any, Any, Any], iterations: int, evaluators: Sequence[Evaluator[Any, Any, Any]]
) -> EvaluationPlan:
    """Describe an evaluation with these evaluators, and those of single cases."""
    all_evaluators = [*evaluators, *(one for case in dataset.cases for one in case.evaluators)]
    described = {proto.SerializeToString(): proto for proto in map(_describe, all_evaluators)}
    return EvaluationPlan(
        dataset=to_text(dataset.name or ""),
        row_count=len(dataset.cases) * iterations,
        iterations=iterations,
        evaluators=described.values(),
    )


def check_unchanged(evaluation_id: str, stored: Stored, plan: EvaluationPlan, planned: Sequence[PlannedRow]) -> None:
    """Raise EvaluationChanged unless the plan equals the stored one, and all stored rows are planned."""
    began = stored.plan or plan
    for what, before, now in (
        ("dataset", began.dataset, plan.dataset),
        ("number of iterations", began.iterations, plan.iterations),
        ("number of rows", began.row_count, plan.row_count),
    ):
        if before != now:
            raise _changed(f"evaluation {evaluation_id} has the {what} {before!r}, not {now!r}")
    if different := _evaluators(began) ^ _evaluators(plan):
        names = ", ".join(sorted({name for name, *_ in different}))
        raise _changed(f"evaluation {evaluation_id} has other evaluators, or other settings of them ({names})")
    rows = {row.key: row for row in planned}
    for key, event in stored.events.items():
        row, now_planned = event.row_finished, rows.get(key)
        if now_planned is None:
            raise _changed(f"row {row.row_id!r} of evaluation {evaluation_id} is not in the dataset")
        for what, was, is_now in (
            ("inputs", row.input_json, now_planned.input_json),
            ("expected output", row.expected_output_json, now_planned.expected_json),
        ):
            if _ADDRESS.sub("", was) != _ADDRESS.sub("", is_now):
                raise _changed(f"row {row.row_id!r} of evaluation {evaluation_id} has different {what} in the dataset")


def value_text(value: object) -> str:
    """Return a value as JSON; if that is too large, its size and its beginning."""
    return _json.encode(value, _LARGEST)


def optional_text(value: object) -> str:
    """Return a value as `value_text` does, and '' for None."""
    return "" if value is None else value_text(value)


def _row_id(case: Case[Any, Any, Any], number: int, input_json: str) -> str:
    if not case.name:
        return f"case {number} {_digest(_ADDRESS.sub('', input_json))}"
    name = to_text(case.name)
    if len(name) <= _LONGEST_ID and name.isprintable():
        return name
    clean = "".join(character if character.isprintable() else " " for character in name)
    return f"{clean[:100]} {_digest(name)}"


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:8]


def _describe(evaluator: Evaluator[Any, Any, Any]) -> event_pb2.Evaluator:
    settings = optional_text(evaluator.as_spec().arguments)
    return event_pb2.Evaluator(
        name=to_text(evaluator.get_default_evaluation_name()),
        version=to_text(evaluator.get_evaluator_version() or ""),
        config_json=bounded_text(settings, _LARGEST_CONFIG),
    )


def _evaluators(plan: EvaluationPlan) -> set[tuple[str, str, str]]:
    return {(one.name, one.version, _ADDRESS.sub("", one.config_json)) for one in plan.evaluators}


def _changed(message: str) -> EvaluationChanged:
    return EvaluationChanged(f"{message}: restore it, or choose another evaluation_id")
