"""Calls about runs, and the values that a client derives from their events."""

import asyncio
from typing import Any

import grpc
from google.protobuf.message import Message

from conformance.cases.reading import recorded_conversation
from conformance.lab import Lab
from conformance.scripts import sequences
from conformance.suite import case, expect, require
from lavant.v1.event_pb2 import ROLE_ASSISTANT, Event
from lavant.v1.run_pb2 import RUN_STATE_FAILED, RUN_STATE_RUNNING, RUN_STATE_SUCCEEDED, Run
from lavant.v1.run_service_pb2 import DeleteRunRequest, WaitRunRequest, WaitRunResponse
from lavant.v1.score_service_pb2 import ListScoresRequest
from support.calls import append, create, ended_run, get
from support.events import a_run_of, message_finished, message_started, run_finished, run_started, text_delta
from support.scripted import Context, Script, abort, status


def ids(runs: list[dict[str, Any]]) -> list[str]:
    """Return the IDs of runs that a driver has reported, in alphabetical order."""
    return sorted(run["runId"] for run in runs)


@case
async def created_run(lab: Lab) -> None:
    """Create a run, and again with the same settings without effect; with others, RUN_EXISTS."""
    server = await lab.server()
    program = await lab.client(server.target)
    request = {"runId": "run", "settings": {"name": "weather", "labels": {"team": "blue"}}}
    for _ in range(2):
        run = (await program.begin("create_run", request=request).done())["run"]
        expect((run["runId"], run["name"], run["labels"]), ("run", "weather", {"team": "blue"}), "the run")
    other = {"runId": "run", "settings": {"name": "other"}}
    await program.begin("create_run", request=other).fails("RUN_EXISTS")


@case
async def fetched_run(lab: Lab) -> None:
    """Return a run with its state and result; RUN_NOT_FOUND if there is none."""
    server = await lab.server()
    await create(server.stubs)
    await append(server.stubs, [run_started(), run_finished(RUN_STATE_FAILED)])
    program = await lab.client(server.target)
    run = (await program.begin("get_run", run="run").done())["run"]
    found = (run["state"], run["lastSequence"], run["result"]["error"]["message"])
    expect(found, ("RUN_STATE_FAILED", "2", "it broke"), "the run")
    await program.begin("get_run", run="none").fails("RUN_NOT_FOUND")


@case
async def invalid_request(lab: Lab) -> None:
    """Report INVALID_FIELD after one call, or refuse the argument without one."""
    server = await lab.server()
    failed = await (await lab.client(server.target)).begin("get_run", run="not/an/id").failure()
    require(failed.reason in ("INVALID_FIELD", ""), f"the reason is {failed.reason!r}")


@case
async def every_page_of_runs(lab: Lab) -> None:
    """List all runs that match, page by page."""
    server = await lab.server()
    for number in range(7):
        await create(server.stubs, f"run-{number}", name="even" if number % 2 == 0 else "odd")
    program = await lab.client(server.target)
    found = (await program.begin("list_runs", request={"pageSize": 2}).done())["runs"]
    expect(ids(found), [f"run-{number}" for number in range(7)], "all runs")
    found = (await program.begin("list_runs", request={"pageSize": 2, "filter": {"names": ["odd"]}}).done())["runs"]
    expect(ids(found), ["run-1", "run-3", "run-5"], "the runs of a name")


@case
async def every_page_of_events(lab: Lab) -> None:
    """List all recorded events, page by page, also of a run that has not ended, and those of a type."""
    server, log = await recorded_conversation(lab)
    await create(server.stubs, "open")
    await append(server.stubs, a_run_of(9, finished=False), run_id="open")
    program = await lab.client(server.target)
    found = (await program.begin("list_events", run="open", page_size=2).done())["events"]
    expect([int(event["sequence"]) for event in found], [*range(1, 10)], "the sequences of an open run")
    found = (await program.begin("list_events", run="run", page_size=3, types=["TOOL_CALL_FINISHED"]).done())["events"]
    wanted = [event.sequence for event in log if event.HasField("tool_call_finished")]
    expect([int(event["sequence"]) for event in found], wanted, "the sequences of a type")


@case
async def waited_run(lab: Lab) -> None:
    """Wait until a run has ended, by as many calls as it takes: each one waits for a limited time."""
    calls: list[float] = []

    async def answer(data: bytes, context: Context) -> Message:
        calls.append(WaitRunRequest.FromString(data).timeout.ToMilliseconds() / 1000)
        state = RUN_STATE_RUNNING if len(calls) < 3 else RUN_STATE_SUCCEEDED
        return WaitRunResponse(run=Run(run_id="run", state=state))

    target = await lab.scripted(Script(unary={"lavant.v1.RunService/WaitRun": answer}))
    run = (await (await lab.client(target)).begin("wait_run", run="run").done())["run"]
    expect((run["state"], len(calls)), ("RUN_STATE_SUCCEEDED", 3), "state and calls")
    require(max(calls) <= 60, f"a call asks to wait for {max(calls)} s")
    server = await lab.server()
    await create(server.stubs)
    waiting = (await lab.client(server.target)).begin("wait_run", run="run", timeout=30)
    await append(server.stubs, a_run_of(4))
    expect((await waiting.done())["run"]["state"], "RUN_STATE_SUCCEEDED", "the state of the run")


@case
async def cancelled_run(lab: Lab) -> None:
    """Ask a run to stop; it is its producer who ends it."""
    server = await lab.server()
    program = await lab.client(server.target)
    publication = await program.publish()
    await publication.flushed()
    run = (await program.begin("cancel_run", run="run", reason="enough").done())["run"]
    expect(run["state"], "RUN_STATE_RUNNING", "the state of the run")
    expect(await publication.operation.value("cancel_requested"), "enough", "the reason")
    publication.finish("CANCELLED")
    await publication.operation.done()


@case
async def watched_runs(lab: Lab) -> None:
    """Report the runs that match, then each change: runs that come, that leave and that are deleted."""
    server = await lab.server()
    await create(server.stubs, "early")
    program = await lab.client(server.target)
    watch = program.begin("watch_runs", request={"filter": {"states": ["RUN_STATE_QUEUED", "RUN_STATE_RUNNING"]}})
    await watch.value("caught_up")
    expect(ids(watch.all("changed")), ["early"], "the runs at the start")
    await create(server.stubs, "late")
    await watch.wait(lambda: "late" in ids(watch.all("changed")), "run 'late'")
    await append(server.stubs, a_run_of(4), run_id="early")
    expect(await watch.value("left"), "early", "the run that left")
    await server.stubs.runs.DeleteRun(DeleteRunRequest(run_id="early"))
    expect(await watch.value("deleted"), "early", "the run that was deleted")
    await watch.cancel()


@case
async def watch_over_kill(lab: Lab) -> None:
    """Watch on over a kill of the server, with the changes since then."""
    process = await lab.server_process()
    stubs = await lab.connected(process.target)
    await create(stubs, "early")
    watch = (await lab.client(process.target)).begin("watch_runs", request={})
    await watch.value("caught_up")
    await process.restart()
    await create(await lab.connected(process.target), "late")
    await watch.wait(lambda: "late" in ids(watch.all("changed")), "run 'late'")
    await watch.cancel()


@case
async def repeated_call(lab: Lab) -> None:
    """Repeat a short call that was cut, until its deadline; an ErrorReason other than UNAVAILABLE is final."""
    answers = [status(grpc.StatusCode.UNAVAILABLE), status(grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE")]
    calls = 0

    async def answer(data: bytes, context: Context) -> Message:
        nonlocal calls
        calls += 1
        if answers:
            await abort(context, answers.pop(0))
        await abort(context, status(grpc.StatusCode.NOT_FOUND, "RUN_NOT_FOUND"))
        raise AssertionError

    target = await lab.scripted(Script(unary={"lavant.v1.RunService/GetRun": answer}))
    await (await lab.client(target)).begin("get_run", run="run").fails("RUN_NOT_FOUND")
    expect(calls, 3, "calls")


@case
async def deadline_of_calls(lab: Lab) -> None:
    """End a short call at its deadline if no answer comes."""
    server = await lab.server()
    proxy = await lab.proxy(server.target)
    program = await lab.client(proxy.target, deadline=1)
    proxy.stall()
    await program.begin("get_run", run="run").failure(limit=8)
    proxy.release()


@case
async def text_of_run(lab: Lab) -> None:
    """Return the text of a run's last assistant message, put together from its deltas."""
    server = await lab.server()
    await create(server.stubs)
    message = message_started()
    message.message_started.role = ROLE_ASSISTANT
    finished = message_finished()
    finished.message_finished.role = ROLE_ASSISTANT
    finished.message_finished.parts.add(text="It is cold.")
    said: list[Event] = [text_delta(text) for text in ("It ", "is ", "cold.")]
    await append(server.stubs, [run_started(), message, *said, finished, run_finished()])
    done = await (await lab.client(server.target)).begin("text", run="run").done()
    expect(done["text"], "It is cold.", "the text")


@case
async def result_of_run(lab: Lab) -> None:
    """Return the output of a run that succeeded, and fail for one that did not: never mistake the one for the other."""
    server = await lab.server()
    await ended_run(server.stubs)
    await create(server.stubs, "failed")
    await append(server.stubs, [run_started(), run_finished(RUN_STATE_FAILED)], run_id="failed")
    program = await lab.client(server.target)
    expect((await program.begin("result", run="run").done())["json"], "cold", "the output")
    failed = await program.begin("result", run="failed").failure()
    expect((failed.reason, failed.code), ("", ""), "the reason and code of a run that failed")


@case
async def recorded_score(lab: Lab) -> None:
    """Record a score on a run."""
    server = await lab.server()
    await ended_run(server.stubs)
    program = await lab.client(server.target)
    await program.begin("score", run="run", name="helpful", value=0.5, evaluator="ada").done()
    async with asyncio.timeout(10):
        response = await server.stubs.scores.ListScores(ListScoresRequest())
    expect([record.score.name for record in response.scores], ["helpful"], "the scores")
    require((await get(server.stubs)).last_sequence == 4, "the score was written to the run")


@case
async def list_then_read(lab: Lab) -> None:
    """Continue by a stream after a list, from the list's position, if the client returns one."""
    server = await lab.server()
    await create(server.stubs)
    run = a_run_of(9)
    await append(server.stubs, run[:5])
    program = await lab.client(server.target)
    position = (await program.begin("list_events", run="run").done()).get("resume_token")
    await append(server.stubs, run[5:], first=6)
    read = program.read(resume_token=position)
    await read.done()
    expect(sequences(read.received), [*range(6 if position else 1, 10)], "the sequences")
