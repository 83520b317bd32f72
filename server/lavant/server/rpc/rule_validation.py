"""Checks on rules and on what workers say: each raises INVALID_FIELD with the field's path and the rule."""

from collections.abc import Callable, Iterable, Sequence

from lavant.server.errors import invalid_field
from lavant.server.evaluation.ledger import LONGEST_HOLD
from lavant.server.evaluation.outcomes import most_failed_scores, score_names
from lavant.server.rpc.validation import check_enum, check_id, check_labels, check_seconds, check_text, value_check
from lavant.v1.evaluation_service_pb2 import CompleteSampleRequest, SampleScores
from lavant.v1.event_pb2 import Evaluator, Score
from lavant.v1.rule_pb2 import Alert, Rule, SampleFilter, ScoreStatistic
from lavant.v1.run_pb2 import Error, RunKind, RunState

MOST_LABELS = 16
_MAX_RULE_ID = 96
_MAX_RULE_BYTES = 64 << 10
_MAX_FAILURE_BYTES = 64 << 10
_MAX_CHOICES = 100
_MAX_EVALUATORS = 100
_MAX_ALERTS = 20
_MAX_SCORE_NAMES = 100
_MAX_SCORES = 500
_MAX_ATTEMPTS = 20
_MAX_NAME = 128
_MAX_SEARCHED = 1_024
_MAX_URL = 2_048
_MAX_DURATION = 315_576_000_000.0
_TERMINAL = 10

_check_evaluator = value_check(Evaluator.DESCRIPTOR)
_check_said = value_check(SampleScores.DESCRIPTOR)
_check_error = value_check(Error.DESCRIPTOR)


def check_rule_id(path: str, value: str) -> str:
    """A rule's id; it becomes part of run ids."""
    return check_id(path, value, at_most=_MAX_RULE_ID)


def check_rule(rule: Rule, may_post: Callable[[str], bool]) -> Rule:
    """All that callers set of a rule; `may_post` tells whether alerts may be posted to an address."""
    check_rule_id("rule.rule_id", rule.rule_id)
    if rule.ByteSize() > _MAX_RULE_BYTES:
        raise invalid_field("rule", f"must have at most {_MAX_RULE_BYTES} bytes")
    _check_filter("rule.filter", rule.filter)
    if not 0 <= rule.sample_rate <= 1:
        raise invalid_field("rule.sample_rate", "must be 0 to 1")
    check_text("rule.salt", rule.salt, at_most=_MAX_NAME)
    _check_evaluators("rule.evaluators", rule.evaluators)
    check_labels("rule.labels", rule.labels, at_most=MOST_LABELS)
    scores = score_names(rule.evaluators)
    if len(scores) > most_failed_scores(rule):
        raise invalid_field("rule.labels", "are too long for so many evaluators, each of whose scores has them")
    if not 0 <= rule.max_attempts <= _MAX_ATTEMPTS:
        raise invalid_field("rule.max_attempts", f"must be 1 to {_MAX_ATTEMPTS}, or 0 for 5")
    _check_count("rule.alerts", rule.alerts, _MAX_ALERTS)
    _check_unique("rule.alerts", (alert.name for alert in rule.alerts))
    for index, alert in enumerate(rule.alerts):
        _check_alert(f"rule.alerts[{index}]", alert)
        if scores and alert.score_name and alert.score_name not in scores:
            known = ", ".join(scores)[:_MAX_SEARCHED]
            raise invalid_field(
                f"rule.alerts[{index}].score_name",
                f"must be one of the scores that the rule's evaluators give ({known}), not {alert.score_name!r}; "
                "an evaluator that gives scores of other names lists them in score_names",
            )
        if alert.webhook_url and not may_post(alert.webhook_url):
            path = f"rule.alerts[{index}].webhook_url"
            raise invalid_field(path, "must begin with one of the addresses that the server's setting `webhooks` names")
    return rule


def check_outcome(request: CompleteSampleRequest) -> None:
    """What a worker says of a sample."""
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
        check_seconds("retry_delay", request.retry_delay, at_least=0, at_most=LONGEST_HOLD)
    if outcome == "returned":
        _check_failure("returned.error", request.returned.error)
        check_seconds("returned.delay", request.returned.delay, at_least=0, at_most=LONGEST_HOLD)


def _check_scores(said: SampleScores) -> None:
    _check_count("scores.scores", said.scores, _MAX_SCORES)
    _check_said("scores", said)
    check_labels("scores.labels", said.labels, at_most=MOST_LABELS)
    _check_unique("scores.scores", (score.name for score in said.scores))
    for index, score in enumerate(said.scores):
        _check_score(f"scores.scores[{index}]", score)


def _check_failure(path: str, failure: Error) -> None:
    _check_error(path, failure)
    if failure.ByteSize() > _MAX_FAILURE_BYTES:
        raise invalid_field(path, f"must have at most {_MAX_FAILURE_BYTES} bytes")


def _check_score(path: str, score: Score) -> None:
    check_text(f"{path}.name", score.name, at_least=1, at_most=_MAX_NAME)
    if score.WhichOneof("value") is None and not score.HasField("error"):
        raise invalid_field(path, "must have a value, or the error of an evaluator that failed")


def _check_filter(path: str, wanted: SampleFilter) -> None:
    for name, choices in (("kinds", wanted.kinds), ("states", wanted.states), ("names", wanted.names)):
        _check_count(f"{path}.{name}", choices, _MAX_CHOICES)
    for index, kind in enumerate(wanted.kinds):
        check_enum(f"{path}.kinds[{index}]", kind, dict(list(RunKind.items())[1:]))
    for index, state in enumerate(wanted.states):
        known = {name: value for name, value in RunState.items() if value >= _TERMINAL}
        check_enum(f"{path}.states[{index}]", state, known)
    for index, name in enumerate(wanted.names):
        check_text(f"{path}.names[{index}]", name, at_least=1)
    check_labels(f"{path}.labels", wanted.labels, at_most=_MAX_CHOICES)
    for name in ("min_duration", "max_duration"):
        check_seconds(f"{path}.{name}", getattr(wanted, name), at_least=0, at_most=_MAX_DURATION)
    for name in ("min_tokens", "max_tokens"):
        if getattr(wanted, name) < 0:
            raise invalid_field(f"{path}.{name}", "must not be negative")
    for name in ("input_contains", "output_contains"):
        if len(getattr(wanted, name)) > _MAX_SEARCHED:
            raise invalid_field(f"{path}.{name}", f"must be at most {_MAX_SEARCHED} characters long")


def _check_evaluators(path: str, evaluators: Sequence[Evaluator]) -> None:
    _check_count(path, evaluators, _MAX_EVALUATORS)
    for index, evaluator in enumerate(evaluators):
        check_text(f"{path}[{index}].name", evaluator.name, at_least=1, at_most=_MAX_NAME)
        check_text(f"{path}[{index}].version", evaluator.version, at_most=_MAX_NAME)
        _check_count(f"{path}[{index}].score_names", evaluator.score_names, _MAX_SCORE_NAMES)
        for place, name in enumerate(evaluator.score_names):
            check_text(f"{path}[{index}].score_names[{place}]", name, at_least=1, at_most=_MAX_NAME)
        _check_evaluator(f"{path}[{index}]", evaluator)
    _check_unique(path, (evaluator.name for evaluator in evaluators))


def _check_alert(path: str, alert: Alert) -> None:
    check_text(f"{path}.name", alert.name, at_least=1, at_most=_MAX_NAME)
    check_text(f"{path}.score_name", alert.score_name, at_most=_MAX_NAME)
    check_enum(f"{path}.statistic", alert.statistic, dict(ScoreStatistic.items()))
    threshold = alert.WhichOneof("threshold")
    if threshold is None:
        raise invalid_field(f"{path}.threshold", "must be set: below or above")
    if not abs(getattr(alert, threshold)) < float("inf"):
        raise invalid_field(f"{path}.{threshold}", "must be a finite number")
    check_seconds(f"{path}.window", alert.window, at_least=60, at_most=31 * 24 * 3600)
    if alert.min_count < 0:
        raise invalid_field(f"{path}.min_count", "must not be negative")
    check_text(f"{path}.webhook_url", alert.webhook_url, at_most=_MAX_URL)
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
