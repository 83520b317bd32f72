"""The example of a gate for CI, as a build runs it."""

import asyncio

import pytest

from examples import ci_gate
from support.server import Server


async def gate(server: Server, commit: str, *more: str, broken: int = 0) -> int:
    """Run the gate with a task that fails for so many countries."""
    failing = list(ci_gate.CAPITALS)[:broken]

    def task(country: str) -> str:
        if country in failing:
            raise LookupError("no such country")
        return ci_gate.CAPITALS[country]

    return await asyncio.to_thread(ci_gate.main, ["--commit", commit, "--target", server.target, *more], task)


async def test_a_good_build_passes(server: Server) -> None:
    assert await gate(server, "good") == 0
    assert await gate(server, "better", "--baseline", "capitals-good") == 0


async def test_a_build_that_breaks_one_row_of_five_fails(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    await gate(server, "good")
    capsys.readouterr()
    assert await gate(server, "bad", "--baseline", "capitals-good", broken=1) == 1
    said = capsys.readouterr().out
    assert "row Norway failed: no such country" in said
    assert "EqualsExpected is worse than in the baseline: Norway" in said


async def test_a_build_that_crashes_everywhere_fails(server: Server) -> None:
    assert await gate(server, "none", broken=5) == 1
