"""The Python client passes the conformance suite: a slice here, all of it with `make conformance`."""

import sys
from pathlib import Path

import pytest

from conformance.runner import run_case
from conformance.suite import Case, cases

COMMAND = f"{sys.executable} {Path(__file__).parent / 'drivers' / 'python_client.py'}"
SLICE = "whole_run,position_of_handled_events,token_of_heartbeat,published_run,resent_byte_for_byte,fenced_producer"


@pytest.mark.parametrize("case", cases(SLICE), ids=lambda case: case.name)
async def test_the_python_client_passes(case: Case) -> None:
    result = await run_case(case, COMMAND)
    assert (result.outcome, result.detail) == ("passed", "")
