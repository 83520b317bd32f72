"""What is kept of a rule beside its results, and where."""

from dataclasses import dataclass, replace
from typing import Any

from google.protobuf import json_format
from pydantic_core import from_json, to_json

from lavant.contract.limits import OWN_RUNS
from lavant.server.evaluation.ledger import Ledger
from lavant.server.model import RESULTS_OF_RULES, RunKey, beside
from lavant.v1.rule_pb2 import Rule
from lavant.v1.run_pb2 import Run, RunKind

_RECORDS = "rules"
_SET_BY_THE_SERVER = (
    "revision", "create_time", "update_time", "evaluation_id", "progress", "backfill", "alert_statuses",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A rule, the number of the segment that its results go to, and what that segment began with."""

    rule: Rule
    segment: int
    carried: Any = None

    def encode(self) -> str:
        """Turn into JSON text."""
        rule = json_format.MessageToDict(self.rule, preserving_proto_field_name=True)
        return to_json({"rule": rule, "segment": self.segment, "carried": self.carried}).decode()

    @classmethod
    def decode(cls, text: str) -> "Record":
        """Read what `encode` gave."""
        parts = from_json(text)
        rule = json_format.ParseDict(parts["rule"], Rule(), ignore_unknown_fields=True)
        return cls(rule=rule, segment=parts["segment"], carried=parts["carried"])

    def ledger(self) -> Ledger:
        """The ledger of the segment's beginning."""
        return Ledger(self.rule.revision, self.carried)

    def following(self, ledger: Ledger) -> "Record":
        """The record with which the next segment begins, behind the end of this one."""
        return replace(self, segment=self.segment + 1, carried=ledger.carry())


def log_of(rule: RunKey) -> RunKey:
    """Where a rule's records are: out of everybody's sight."""
    return RunKey(beside(rule.tenant, _RECORDS), rule.run_id)


def rule_of(log: RunKey) -> RunKey | None:
    """The rule whose records are there; None: it is no such log."""
    tenant, _, part = log.tenant.rpartition("/")
    return RunKey(tenant, log.run_id) if part == _RECORDS else None


def log_run(rule_id: str) -> Run:
    """What a rule's log is created from."""
    return Run(kind=RunKind.RUN_KIND_EVALUATION, name=rule_id)


def segment_of(rule: RunKey, number: int) -> RunKey:
    """The run that a segment's results are in."""
    return RunKey(rule.tenant, f"{OWN_RUNS}{rule.run_id}.{number}")


def segment_run(rule_id: str) -> Run:
    """What a segment is created from."""
    return Run(kind=RunKind.RUN_KIND_EVALUATION, name=rule_id, labels=RESULTS_OF_RULES)


def settings_of(rule: Rule) -> Rule:
    """A rule without what the server sets, to be compared."""
    settings = Rule()
    settings.CopyFrom(rule)
    for name in _SET_BY_THE_SERVER:
        settings.ClearField(name)  # type: ignore[arg-type]  # the names are literals above
    return settings
