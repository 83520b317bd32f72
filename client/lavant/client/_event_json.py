"""The JSON of evaluations' events, as lavant's HTTP streams send it."""

import json
from typing import Any

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from lavant.client._evaluations import Evaluation, EvaluationEvent
from lavant.client._rows import Row


def evaluation_json(event: EvaluationEvent) -> str:
    """Return what an event says, as JSON text on one line, in ASCII. What is not known is left out."""
    return json.dumps(_known(event, exclude={"type"}))


def _known(model: BaseModel, exclude: set[str] | None = None) -> dict[str, Any]:
    found = {}
    for name, value in model:
        if name not in (exclude or ()) and (plain := _plain(value)) not in (None, "", {}):
            found[name] = plain
    return found


def _plain(value: object) -> Any:
    if isinstance(value, Row):
        score = {} if value.score is None else {"score": value.score}
        return _known(value) | score
    if isinstance(value, Evaluation):
        return _known(value, exclude={"id", "rows", "comparison", "error"})
    if isinstance(value, BaseModel):
        return _known(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return to_jsonable_python(value, timedelta_mode="float", inf_nan_mode="null")
