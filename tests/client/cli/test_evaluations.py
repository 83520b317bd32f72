"""`lavant evaluations`."""

import json

import pytest

from client.cli.conftest import Lavant
from lavant.client import AsyncClient
from support.offline import evaluation


async def test_evaluations_are_listed(client: AsyncClient, lavant: Lavant) -> None:
    evaluation_id = await evaluation(client)
    await client.runs.create("agent")
    listed = await lavant("evaluations")
    assert listed.out == f"{evaluation_id}\tcities\tsucceeded\tcorrect=0.5\n"
    (line,) = (await lavant("evaluations", "--json")).out.splitlines()
    assert json.loads(line)["result"]["evaluation"]["mean_scores"] == {"correct": 0.5}


@pytest.mark.parametrize(
    ("flags", "status", "said"),
    [
        ([], 0, ""),
        (["--min-score", "correct=0.5"], 0, ""),
        (["--min-score", "accuracy=0.6"], 20, "lavant: accuracy is 0.5, less than 0.6\n"),
        (["--min-score", "correct=0.8"], 20, "lavant: correct is 0.5, less than 0.8\n"),
        (
            ["--min-score", "correct=0.1", "--min-score", "clear=0.1"],
            20,
            "lavant: clear is missing, expected at least 0.1\n",
        ),
    ],
)
async def test_an_evaluation_is_checked_against_bounds(
    client: AsyncClient, lavant: Lavant, flags: list[str], status: int, said: str
) -> None:
    evaluation_id = await evaluation(client)
    ended = await lavant("evaluations", evaluation_id, *flags)
    assert (ended.status, ended.err) == (status, said)
    first, accuracy, second = ended.out.splitlines()
    assert first == f"{evaluation_id} succeeded: 2 rows scored"
    assert (accuracy.split()[:2], second.split()[:2]) == (["accuracy", "0.5"], ["correct", "0.5"])


async def test_unsuccessful_evaluations_have_their_own_status(client: AsyncClient, lavant: Lavant) -> None:
    with pytest.raises(LookupError):
        async with client.runs.start("cities", run_id="failed", kind="evaluation"):
            raise LookupError("no dataset")
    ended = await lavant("evaluations", "failed", "--min-score", "correct=0.5")
    assert (ended.status, ended.out) == (10, "failed failed: 0 rows scored\nLookupError: no dataset\n")
    await client.runs.create("cities", run_id="waiting", kind="evaluation")
    assert (await lavant("evaluations", "waiting", "--timeout", "0.1")).status == 124
    wrong = await lavant("evaluations", "failed", "--min-score", "correct")
    assert (wrong.status, "must be NAME=NUMBER, such as correctness=0.8" in wrong.err) == (2, True)
