"""The suite finds the mistakes of wrong clients."""

import pytest

from conformance.drivers.mutants import MUTANTS
from conformance.runner import run_case
from conformance.suite import cases
from conformance.test_python_client import COMMAND


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", MUTANTS)
async def test_a_wrong_client_fails_the_cases_for_its_mistake(name: str) -> None:
    by_name = {case.name: case for case in cases()}
    for wanted in MUTANTS[name].cases:
        result = await run_case(by_name[wanted], f"{COMMAND} --mutant {name}")
        assert result.outcome == "failed", f"{wanted} has not found it"
        assert "Error" not in result.detail.partition(":")[0], result.detail
