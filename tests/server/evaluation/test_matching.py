"""Which finished runs a rule wants."""

from hashlib import sha256
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from lavant.server.evaluation.matching import Matcher
from lavant.v1.rule_pb2 import Rule, SampleFilter
from lavant.v1.run_pb2 import Error, Run, RunFinished, RunState, TokenUsage

IDS = [f"run-{number}" for number in range(5_000)]


def a_run(run_id: str = "run", **fields: Any) -> Run:
    """A finished run of 3 s and 30 tokens."""
    result = RunFinished(
        state=RunState.RUN_STATE_SUCCEEDED,
        output_json='{"answer": "Cold Rain"}',
        usage=TokenUsage(input_tokens=10, output_tokens=20),
    )
    return Run(
        **{
            "run_id": run_id,
            "name": "weather-agent",
            "state": RunState.RUN_STATE_SUCCEEDED,
            "labels": {"env": "prod", "team": "blue-1"},
            "create_time": {"seconds": 100},
            "end_time": {"seconds": 103},
            "result": result,
            **fields,
        }
    )


@pytest.mark.parametrize(
    ("wanted", "holds"),
    [
        ({}, True),
        ({"names": ["weather-agent"]}, True),
        ({"names": ["weather"]}, False),
        ({"names": ["weather*"]}, True),
        ({"names": ["*agent"]}, True),
        ({"names": ["w?ather-agen?"]}, True),
        ({"names": ["?weather-agent"]}, False),
        ({"names": ["*"]}, True),
        ({"names": ["**weather**agent**"]}, True),
        ({"names": ["w*e*r*-*t"]}, True),
        ({"names": ["w*ent*ent"]}, False),
        ({"names": ["weather*her-agent"]}, False),
        ({"names": ["*a?e*"]}, True),
        ({"names": ["weather.agent", "[w]*"]}, False),
        ({"names": ["other", "weather*"]}, True),
        ({"labels": {"env": "prod"}}, True),
        ({"labels": {"env": "prod", "team": "blue-?"}}, True),
        ({"labels": {"env": "prod", "team": "red*"}}, False),
        ({"labels": {"region": "*"}}, False),
        ({"states": [RunState.RUN_STATE_SUCCEEDED]}, True),
        ({"states": [RunState.RUN_STATE_FAILED]}, False),
        ({"min_duration": {"seconds": 3}}, True),
        ({"min_duration": {"seconds": 3, "nanos": 1}}, False),
        ({"max_duration": {"seconds": 3}}, True),
        ({"max_duration": {"seconds": 2}}, False),
        ({"min_tokens": 30}, True),
        ({"min_tokens": 31}, False),
        ({"max_tokens": 30}, True),
        ({"max_tokens": 0}, False),
        ({"has_error": True}, False),
        ({"has_error": False}, True),
        ({"output_contains": "cold rain"}, True),
        ({"output_contains": "snow"}, False),
    ],
    ids=str,
)
def test_a_filter(wanted: dict[str, Any], holds: bool) -> None:
    assert Matcher(Rule(filter=SampleFilter(**wanted))).wants(a_run()) is holds


@pytest.mark.timeout(10)
def test_no_pattern_takes_for_ever() -> None:
    name = "a" * 256
    for pattern in ("*a" * 100 + "b", "a*" * 60 + "b", "*?" * 100 + "b", "*" * 200 + "b", "*a?" * 60 + "*b*"):
        assert not Matcher(Rule(filter=SampleFilter(names=[pattern]))).wants(a_run(name=name))
        assert Matcher(Rule(filter=SampleFilter(names=[pattern.replace("b", "a")]))).wants(a_run(name=name))


def test_the_duration_of_the_result_counts_if_it_has_one() -> None:
    run = a_run()
    run.result.duration.seconds = 60
    assert Matcher(Rule(filter=SampleFilter(min_duration=Duration(seconds=60)))).wants(run)


def test_an_error_of_the_run() -> None:
    failed = a_run(state=RunState.RUN_STATE_FAILED, result=RunFinished(error=Error(message="it broke")))
    assert Matcher(Rule(filter=SampleFilter(has_error=True))).wants(failed)


def test_the_input_is_searched_whatever_the_case() -> None:
    matcher = Matcher(Rule(filter=SampleFilter(input_contains="OSLO")))
    assert matcher.needs_input
    assert matcher.wants_input('{"city": "Oslo"}')
    assert not matcher.wants_input('{"city": "Bergen"}')


def test_the_servers_own_runs_are_not_looked_at() -> None:
    matcher = Matcher(Rule())
    assert not matcher.examines(a_run("lavant.rule.1"))
    assert matcher.examines(a_run("lavant-like"))


def sampled(**rule: Any) -> set[str]:
    """The runs that a rule of a rate samples."""
    matcher = Matcher(Rule(**rule))
    return {run_id for run_id in IDS if matcher.wants(a_run(run_id))}


def test_rates() -> None:
    assert sampled(sample_rate=0.0) == set()
    assert sampled(sample_rate=1.0) == sampled() == set(IDS)
    assert 400 < len(sampled(sample_rate=0.1)) < 600


def test_a_rate_is_reproducible_and_a_higher_one_samples_more_of_the_same() -> None:
    assert sampled(sample_rate=0.1) == sampled(sample_rate=0.1, rule_id="another")
    assert sampled(sample_rate=0.1) < sampled(sample_rate=0.2) < sampled(sample_rate=0.9)
    assert sampled(sample_rate=0.1) != sampled(sample_rate=0.1, salt="other")


def test_the_rate_is_the_contracts() -> None:
    def share(run_id: str) -> int:
        return int.from_bytes(sha256(b"salty\0" + run_id.encode()).digest()[:8], "big")

    expected = {run_id for run_id in IDS if share(run_id) < 0.25 * 2**64}
    assert sampled(sample_rate=0.25, salt="salty") == expected
