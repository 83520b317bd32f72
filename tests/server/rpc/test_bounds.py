"""Checks of requests by the bounds that the contract declares."""

import re
from typing import Any

import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.duration_pb2 import Duration

from lavant.server.errors import ServiceError
from lavant.server.rpc.bounds import checked
from lavant.server.rpc.evaluation_service import EvaluationService
from lavant.server.rpc.event_service import EventService
from lavant.server.rpc.rule_service import RuleService
from lavant.server.rpc.run_service import RunService
from lavant.server.rpc.score_service import ScoreService
from lavant.server.rpc.watch_runs import RunWatcher
from lavant.v1 import (
    evaluation_service_pb2,
    event_service_pb2,
    rule_service_pb2,
    run_service_pb2,
    score_service_pb2,
)
from lavant.v1.run_pb2 import RunSettings

SERVICES = (EvaluationService, EventService, RuleService, RunService, RunWatcher, ScoreService)
CONTRACT = (evaluation_service_pb2, event_service_pb2, rule_service_pb2, run_service_pb2, score_service_pb2)
RPCS = [
    method
    for module in CONTRACT
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
    if method.name not in {"AppendEvents", "PublishEvents"}  # the rules of a log check their events
]


class Service:
    """A service whose only method returns the name that it was given."""

    @checked(run_service_pb2.CreateRunRequest)
    def create(self, request: run_service_pb2.CreateRunRequest) -> str:
        return request.settings.name


def refusal(**settings: Any) -> str:
    request = run_service_pb2.CreateRunRequest(settings=RunSettings(**settings))
    with pytest.raises(ServiceError) as caught:
        Service().create(request)
    return caught.value.message


def test_a_request_within_its_bounds_reaches_the_method() -> None:
    request = run_service_pb2.CreateRunRequest(settings=RunSettings(name="weather", labels={"team": "search"}))
    assert Service().create(request) == "weather"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": ""}, "name: must be 1 to 256 characters long, not 0"),
        ({"name": "a\nb"}, "name: must not contain control characters"),
        ({"name": "a", "parent_run_id": "a b"}, "parent_run_id: must be 1 to 128 characters of A-Z a-z 0-9 . _ ~ -"),
        (
            {"name": "a", "parent_run_id": ".."},
            "parent_run_id: must not be . or .., which mean something else in a URL",
        ),
        (
            {"name": "a", "producer_timeout": Duration(seconds=-1)},
            "producer_timeout: must be 1 s to 2,592,000 s",
        ),
        (
            {"name": "a", "kind": 7},
            "kind: must be one of RUN_KIND_UNSPECIFIED, RUN_KIND_AGENT, RUN_KIND_EVALUATION",
        ),
        (
            {"name": "a", "labels": {str(n): "" for n in range(65)}},
            "labels: must have at most 64 items, not 65",
        ),
        (
            {"name": "a", "labels": {"": "v"}},
            "labels: each key must be 1 to 128 characters long, not 0; '' is not",
        ),
        (
            {"name": "a", "labels": {"k": "v" * 1_025}},
            "labels['k']: must be 0 to 1,024 characters long, not 1,025",
        ),
    ],
)
def test_a_field_beyond_its_bounds_is_named_with_the_rule(fields: dict[str, Any], message: str) -> None:
    assert refusal(**fields) == f"settings.{message}"


@pytest.mark.parametrize("method", RPCS, ids=lambda method: method.full_name)
def test_every_call_but_publishing_is_checked(method: MethodDescriptor) -> None:
    name = re.sub(r"(?<!^)(?=[A-Z])", "_", method.name).lower()
    implementations = [getattr(service, name) for service in SERVICES if hasattr(service, name)]
    assert [hasattr(found, "__wrapped__") for found in implementations] == [True]
