"""What a worker tells of its samples. Pure."""

from datetime import timedelta

from lavant.client._frozen import Frozen
from lavant.client._models import ErrorInfo, Run
from lavant.client._rows import Score


class JudgedRun(Frozen):
    """A finished run that a worker has judged; or could not judge, with the `error`: then it is tried again later.

    `attempt` counts from 1. Failures of single evaluators are among the `scores`, with an error each.

    Example:
        def show(judged: JudgedRun) -> None:
            print(judged.run.name, {score.name: score.value for score in judged.scores}, judged.error)

        await client.rules.create("quality")
        await client.rules.backfill("quality")
        await client.evaluations.process_stream(
            "quality", evaluators=[EqualsExpected()], on_judged=show, until_caught_up=True
        )
    """

    run: Run
    attempt: int
    scores: tuple[Score, ...] = ()
    error: ErrorInfo | None = None
    duration: timedelta


class ProcessedSamples(Frozen):
    """What became of a worker's samples.

    `judged` were evaluated, `failed` recorded as failed after their last attempt, `lost` to other workers. `returned`
    counts attempts that were given back, to be made again later. If the work ended though samples are left, since
    their evaluators are down, `waiting` tells how many, and `error` why.

    Example:
        await client.rules.create("quality")
        done = await client.evaluations.process_stream("quality", evaluators=[EqualsExpected()], until_caught_up=True)
        assert done == ProcessedSamples(judged=0, failed=0, lost=0)
    """

    judged: int = 0
    failed: int = 0
    lost: int = 0
    returned: int = 0
    waiting: int = 0
    error: ErrorInfo | None = None
