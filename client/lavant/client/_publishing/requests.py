"""Requests that create runs."""

import logging
from collections.abc import Mapping

from lavant.client._publishing.fitting import Fitting
from lavant.client._wire.arguments import check_seconds, duration, run_kind, text_labels
from lavant.client._wire.ids import new_id
from lavant.contract.limits import MAX_LABEL_KEY_LENGTH, MAX_LABEL_VALUE_LENGTH, MAX_LABELS
from lavant.contract.text import to_name
from lavant.v1.run_pb2 import Run, RunSettings
from lavant.v1.run_service_pb2 import CreateRunRequest

_log = logging.getLogger("lavant.client")


def create_request(
    name: str,
    run_id: str | None,
    kind: str,
    labels: Mapping[str, str] | None,
    parent_run_id: str,
    conversation_id: str,
    producer_timeout: float | None,
) -> CreateRunRequest:
    """Return the request for a run. It can be repeated, because the id is generated here unless one is given."""
    settings = RunSettings(
        kind=run_kind(kind),
        name=name,
        labels=text_labels(labels),
        parent_run_id=parent_run_id,
        conversation_id=conversation_id,
        producer_timeout=(
            None if producer_timeout is None else duration(check_seconds("producer_timeout", producer_timeout))
        ),
    )
    return CreateRunRequest(run_id=run_id or new_id(), settings=settings)


def fitting_request(
    name: object,
    run_id: object,
    kind: str,
    labels: object,
    parent_run_id: object,
    conversation_id: object,
    producer_timeout: float | None,
) -> CreateRunRequest:
    """Return the request for a run from arguments of any type.

    Arguments that the server would refuse are changed, which is logged.
    """
    fit = Fitting()
    request = CreateRunRequest(run_id=fit.run_id("run_id", run_id) or new_id())
    settings = request.settings
    settings.name = fit.name("name", name, default="run")
    settings.parent_run_id = fit.run_id("parent_run_id", parent_run_id)
    settings.conversation_id = fit.key("conversation_id", conversation_id)
    try:
        settings.kind = run_kind(kind)
    except Exception:
        fit.note("kind is not a kind of run: agent, evaluation")
    try:
        if producer_timeout is not None:
            settings.producer_timeout.CopyFrom(duration(check_seconds("producer_timeout", producer_timeout)))
    except Exception:
        fit.note("producer_timeout is not a number of seconds")
    _add_labels(settings, labels, fit)
    if fit.changes:
        _log.warning("run %s is not created as was asked: %s", request.run_id, "; ".join(fit.changes))
    return request


def _add_labels(settings: RunSettings, labels: object, fit: Fitting) -> None:
    try:
        given = list((labels or {}).items())  # type: ignore[attr-defined]
    except Exception:
        fit.note(f"labels is a {type(labels).__name__}, not a mapping")
        return
    for key, value in given:
        name = to_name(key, at_most=MAX_LABEL_KEY_LENGTH)
        if not name or len(settings.labels) >= MAX_LABELS:
            fit.note(f"label {name!r} is left out: labels have names, and there are at most {MAX_LABELS}")
            continue
        settings.labels[name] = to_name(value, at_most=MAX_LABEL_VALUE_LENGTH)
        if (name, settings.labels[name]) != (key, value):
            fit.note(f"label {name!r} is changed")


def created_again(run: Run) -> CreateRunRequest:
    """Return the request that a run was created by."""
    settings = RunSettings(
        kind=run.kind,
        name=run.name,
        labels=run.labels,
        parent_run_id=run.parent_run_id,
        conversation_id=run.conversation_id,
        producer_timeout=run.producer_timeout if run.HasField("producer_timeout") else None,
    )
    return CreateRunRequest(run_id=run.run_id, settings=settings)
