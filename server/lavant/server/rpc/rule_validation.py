"""Checks of rules and of workers' results: each raises INVALID_FIELD with the field's path and the bound."""

from collections.abc import Callable, Iterable, Sequence

from lavant.server.errors import invalid_field
from lavant.server.evaluation.log import SET_BY_THE_SERVER
from lavant.server.evaluation.outcomes import MOST_FAILED_SCORES, score_names
from lavant.server.evaluation.webhook_addresses import HIDDEN
from lavant.server.rpc.validation import check_text
from lavant.v1.evaluation_service_pb2 import CompleteSampleRequest, SampleScores
from lavant.v1.event_pb2 import Evaluator, Score
from lavant.v1.rule_pb2 import Alert, Rule, SampleFilter
from lavant.v1.rule_service_pb2 import UpdateRuleRequest
from lavant.v1.run_pb2 import Error

MOST_LABELS = 16
_MAX_RULE_BYTES = 64 << 10
_MAX_FAILURE_BYTES = 64 << 10
_MAX_SCORE_NAMES = 100
_MAX_NAME = 128
_MAX_SEARCHED = 1_024

_SETTINGS = (
    *(field.name for field in Rule.DESCRIPTOR.fields if field.name not in {"rule_id", *SET_BY_THE_SERVER}),
    *(f"filter.{field.name}" for field in SampleFilter.DESCRIPTOR.fields),
)


def check_rule(rule: Rule, may_post: Callable[[str], bool]) -> Rule:
    """Check all settings of a rule, and return it; `may_post` returns whether alerts may be posted to an address."""
    if rule.ByteSize() > _MAX_RULE_BYTES:
        raise invalid_field("rule", f"must have at most {_MAX_RULE_BYTES} bytes")
    _check_evaluators("rule.evaluators", rule.evaluators)
    scores = score_names(rule.evaluators)
    if len(scores) > MOST_FAILED_SCORES:
        raise invalid_field("rule.evaluators", f"must name at most {MOST_FAILED_SCORES} scores in all")
    _check_unique("rule.alerts", (alert.name for alert in rule.alerts))
    for index, alert in enumerate(rule.alerts):
        _check_alert(f"rule.alerts[{index}]", alert)
        if scores and alert.score_name and alert.score_name not in scores:
            known = ", ".join(scores)[:_MAX_SEARCHED]
            raise invalid_field(
                f"rule.alerts[{index}].score_name",
                f"must be one of the scores of the rule's evaluators ({known}), not {alert.score_name!r}; "
                "an evaluator with scores of other names lists them in score_names",
            )
        if alert.webhook_url and not may_post(alert.webhook_url):
            path = f"rule.alerts[{index}].webhook_url"
            raise invalid_field(path, "must begin with one of the addresses that the server's setting `webhooks` names")
    return rule


def setting_paths(request: UpdateRuleRequest) -> list[str]:
    """Return the paths of the settings that an update changes; without a mask, those that its rule sets."""
    paths = request.update_mask.paths
    if not paths:
        filter_paths = [f"filter.{field.name}" for field, _ in request.rule.filter.ListFields()]
        rule_paths = [field.name for field, _ in request.rule.ListFields() if field.name != "filter"]
        return [path for path in (*rule_paths, *filter_paths) if path in _SETTINGS]
    for index, path in enumerate(paths):
        if path not in _SETTINGS:
            known = ", ".join(_SETTINGS)
            raise invalid_field(f"update_mask.paths[{index}]", f"must be a setting of a rule, one of {known}")
    return list(paths)


def check_outcome(request: CompleteSampleRequest) -> None:
    """Check the outcome that a worker reports for a sample."""
    outcome = request.WhichOneof("outcome")
    if outcome is None:
        raise invalid_field("outcome", "must be set: scores, failure or returned")
    if outcome == "scores":
        _check_scores(request.scores)
    if outcome == "failure":
        _check_failure("failure", request.failure)
        _check_evaluators("evaluators", request.evaluators)
        if sum(one.ByteSize() for one in request.evaluators) > _MAX_RULE_BYTES:
            raise invalid_field("evaluators", f"must have at most {_MAX_RULE_BYTES} bytes")
    if outcome == "returned":
        _check_failure("returned.error", request.returned.error)
        if request.run_id and request.returned.run_ids:
            raise invalid_field("returned.run_ids", "must not be set together with run_id")


def _check_scores(said: SampleScores) -> None:
    _check_unique("scores.scores", (score.name for score in said.scores))
    for index, score in enumerate(said.scores):
        _check_score(f"scores.scores[{index}]", score)


def _check_failure(path: str, failure: Error) -> None:
    if failure.ByteSize() > _MAX_FAILURE_BYTES:
        raise invalid_field(path, f"must have at most {_MAX_FAILURE_BYTES} bytes")


def _check_score(path: str, score: Score) -> None:
    check_text(f"{path}.name", score.name, at_least=1, at_most=_MAX_NAME)
    if score.WhichOneof("value") is None and not score.HasField("error"):
        raise invalid_field(path, "must have a value, or the error of an evaluator that failed")


def _check_evaluators(path: str, evaluators: Sequence[Evaluator]) -> None:
    for index, evaluator in enumerate(evaluators):
        check_text(f"{path}[{index}].name", evaluator.name, at_least=1, at_most=_MAX_NAME)
        check_text(f"{path}[{index}].version", evaluator.version, at_most=_MAX_NAME)
        _check_count(f"{path}[{index}].score_names", evaluator.score_names, _MAX_SCORE_NAMES)
        for place, name in enumerate(evaluator.score_names):
            check_text(f"{path}[{index}].score_names[{place}]", name, at_least=1, at_most=_MAX_NAME)
    _check_unique(path, (evaluator.name for evaluator in evaluators))


def _check_alert(path: str, alert: Alert) -> None:
    if alert.WhichOneof("threshold") is None:
        raise invalid_field(f"{path}.threshold", "must be set: below or above")
    if alert.webhook_url.endswith(HIDDEN):
        raise invalid_field(f"{path}.webhook_url", "is shortened, as in answers; send the whole address")
    if alert.webhook_url and not alert.webhook_url.startswith(("http://", "https://")):
        raise invalid_field(f"{path}.webhook_url", "must begin with http:// or https://")


def _check_count(path: str, items: Sequence[object], at_most: int) -> None:
    if len(items) > at_most:
        raise invalid_field(path, f"must be at most {at_most}")


def _check_unique(path: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for index, name in enumerate(names):
        if name in seen:
            raise invalid_field(f"{path}[{index}].name", "is there already; no name may be there twice")
        seen.add(name)
