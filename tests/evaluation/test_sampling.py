"""Runs finish, a rule draws them, workers are handed them."""

from lavant.v1.run_pb2 import RunKind, RunState
from support.calls import get
from support.rules import Worker, create_rule, finish, get_rule, judged, results, scored
from support.server import Server


async def test_what_finishes_is_handed_out_in_order_and_judged_once(server: Server) -> None:
    stubs = server.stubs
    await finish(stubs, ["before"])
    rule = await create_rule(stubs, labels={"team": "blue"})
    assert (rule.revision, rule.evaluation_id) == (1, "lavant.rule.1")
    ids = await finish(stubs, [f"run-{number}" for number in range(20)])

    worker = await Worker(stubs).opened()
    assert await worker.got(20) == ids
    assert await worker.complete(*ids) == [False] * 20
    assert (await worker.caught_up()).progress.runs_judged == 0
    worker.cut()

    events = await results(stubs)
    assert judged(events) == ids
    assert scored(events) == [(run_id, "correct") for run_id in ids]
    recorded = next(event.score_recorded for event in events if event.HasField("score_recorded"))
    run = await get(stubs, "run-0")
    assert (recorded.rule_id, recorded.subject_name, recorded.subject_time) == ("rule", "weather", run.end_time)
    assert recorded.labels == {"team": "blue"}
    progress = (await get_rule(stubs)).progress
    assert (progress.runs_seen, progress.runs_drawn, progress.runs_judged, progress.runs_failed) == (20, 20, 20, 0)
    segment = await get(stubs, rule.evaluation_id)
    assert (segment.kind, segment.state) == (RunKind.RUN_KIND_EVALUATION, RunState.RUN_STATE_RUNNING)
