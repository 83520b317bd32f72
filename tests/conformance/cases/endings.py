"""The ends of calls that stream, and what a reader does about each."""

import time

import grpc
from google.rpc.status_pb2 import Status

from conformance.lab import Lab
from conformance.scripts import RUN_FINISHED, UNAVAILABLE, asked, plays, retry_after, sequences, whole
from conformance.suite import case, expect, require
from conformance.web_page import WebPage
from lavant.v1 import event_service_pb2 as pb
from support.calls import ended_run
from support.scripted import Script, StreamAct, end, events, opened, status

Code = grpc.StatusCode


async def check_resumed(lab: Lab, cut: StreamAct, token: str = "t2") -> None:
    """Fail unless a call that sends events 1 and 2 and ends so is resumed by the same session's next attempt."""
    script = Script([cut, whole(3, 4)])
    read = (await lab.client(await lab.scripted(script))).read()
    await read.done()
    expect(sequences(read.received), [1, 2, 3, 4], "the sequences")
    first, second = script.requests
    expect(second.session_id, first.session_id, "the session of the second call")
    require(second.attempt > first.attempt, f"attempt {second.attempt} follows {first.attempt}")
    expect(second.resume_token, token, "the token of the second call")


async def check_final(lab: Lab, reason: str, *acts: StreamAct) -> None:
    """Fail unless each call that ends so is the last one of its reader, and its error is reported."""
    script = Script([*acts, *[whole(3)] * len(acts)])
    program = await lab.client(await lab.scripted(script))
    for number in range(1, len(acts) + 1):
        await program.read(consumer=f"reader-{number}").fails(reason)
        expect(len(script.requests), number, "calls")
    await lab.pause(0.3)
    expect(len(script.requests), len(acts), "calls")


def after_two(refusal: Status | None = None, *more: pb.StreamEventsResponse) -> StreamAct:
    """Return an act that sends events 1 and 2 and ends with a status."""
    return plays(opened(), events(1, 2), *more, then=refusal)


def planned(reason: "pb.StreamEndReason.ValueType", delay_ms: int = 0) -> pb.StreamEventsResponse:
    """Return an end after which to reconnect."""
    frame = end(reason, reconnect=True)
    if delay_ms:
        frame.end.retry_delay.FromMilliseconds(delay_ms)
    return frame


@case
async def cut_unavailable(lab: Lab) -> None:
    """Resume after UNAVAILABLE without an ErrorReason."""
    await check_resumed(lab, after_two(UNAVAILABLE))


@case
async def cut_cancelled(lab: Lab) -> None:
    """Resume after CANCELLED that the client has not caused."""
    await check_resumed(lab, after_two(status(Code.CANCELLED)))


@case
async def cut_deadline(lab: Lab) -> None:
    """Resume after DEADLINE_EXCEEDED without an ErrorReason."""
    await check_resumed(lab, after_two(status(Code.DEADLINE_EXCEEDED)))


@case
async def cut_reset(lab: Lab) -> None:
    """Resume after INTERNAL whose text names a failure of the transport, as proxies send it."""
    await check_resumed(lab, after_two(status(Code.INTERNAL, message="Received RST_STREAM with error code 2")))


@case
async def cut_stream_removed(lab: Lab) -> None:
    """Resume after UNKNOWN whose text names a failure of the transport."""
    await check_resumed(lab, after_two(status(Code.UNKNOWN, message="Stream removed")))


@case
async def cut_without_end(lab: Lab) -> None:
    """Resume after OK without an `end`: a proxy has closed the stream."""
    await check_resumed(lab, after_two())


@case
async def end_of_age(lab: Lab) -> None:
    """Reconnect at once after an end with `reconnect`, from its token."""
    await check_resumed(lab, after_two(None, planned(pb.STREAM_END_REASON_MAX_AGE)), "te")


@case
async def end_of_deadline(lab: Lab) -> None:
    """Reconnect after the end that comes before the deadline of the call."""
    await check_resumed(lab, after_two(None, planned(pb.STREAM_END_REASON_DEADLINE)), "te")


@case
async def end_of_silence(lab: Lab) -> None:
    """Reconnect after the end for idleness, unless the application has set `idle_timeout`."""
    await check_resumed(lab, after_two(None, planned(pb.STREAM_END_REASON_IDLE)), "te")


@case
async def end_of_drain(lab: Lab) -> None:
    """Wait `retry_delay` before reconnecting to a server that drains."""
    script = Script([after_two(None, planned(pb.STREAM_END_REASON_DRAINING, 700)), whole(3)])
    read = (await lab.client(await lab.scripted(script))).read()
    await read.events(2)
    began = time.monotonic()
    await read.done()
    require(time.monotonic() - began > 0.6, "the second call came before retry_delay had passed")
    expect(sequences(read.received), [1, 2, 3], "the sequences")


@case
async def end_is_final(lab: Lab) -> None:
    """Stop after an end without `reconnect`."""
    script = Script([after_two(None, RUN_FINISHED), whole(3)])
    read = (await lab.client(await lab.scripted(script))).read()
    await read.done()
    await lab.pause(0.3)
    expect((sequences(read.received), len(script.requests)), ([1, 2], 1), "sequences and calls")


@case
async def error_unavailable(lab: Lab) -> None:
    """Resume after the error UNAVAILABLE, not before the time of its RetryInfo."""
    refusal = retry_after(status(Code.UNAVAILABLE, "UNAVAILABLE"), 0.7)
    script = Script([plays(then=refusal), whole(1)])
    program = await lab.client(await lab.scripted(script))
    read = program.read()
    await asked(script, 1)
    began = time.monotonic()
    await read.done()
    require(time.monotonic() - began > 0.6, "the second call came before the time of RetryInfo")


@case
async def error_slow_consumer(lab: Lab) -> None:
    """Resume after the error SLOW_CONSUMER."""
    await check_resumed(lab, after_two(retry_after(status(Code.RESOURCE_EXHAUSTED, "SLOW_CONSUMER"), 0.1)))


@case
async def error_of_token(lab: Lab) -> None:
    """Report RESUME_TOKEN_INVALID for a damaged token and for one of another run; do not start without it."""
    server = await lab.server()
    for run in ("one", "other"):
        await ended_run(server.stubs, run)
    program = await lab.client(server.target)
    done = await program.read("one").done()
    await program.read("other", resume_token=done["resume_token"]).fails("RESUME_TOKEN_INVALID")
    damaged = done["resume_token"][:-4] + ("AAAA" if not done["resume_token"].endswith("AAAA") else "BBBB")
    await program.read("one", consumer="x", resume_token=damaged).fails("RESUME_TOKEN_INVALID")


@case
async def error_of_store_epoch(lab: Lab) -> None:
    """Report STORE_EPOCH_CHANGED: the events may have changed."""
    refusal = plays(then=status(Code.FAILED_PRECONDITION, "STORE_EPOCH_CHANGED"))
    await check_final(lab, "STORE_EPOCH_CHANGED", refusal)


@case
async def error_is_final(lab: Lab) -> None:
    """Fail with an ErrorReason that asks for nothing else, after one call."""
    await check_final(lab, "DATA_LOSS", after_two(status(Code.DATA_LOSS, "DATA_LOSS")))


@case
async def error_of_newer_server(lab: Lab) -> None:
    """Fail with an ErrorReason that the client does not know, and report its name."""
    await check_final(lab, "LATER_REASON", after_two(status(Code.FAILED_PRECONDITION, "LATER_REASON")))


@case
async def defect_of_server(lab: Lab) -> None:
    """Fail after INTERNAL and UNKNOWN whose text names no failure of the transport."""
    codes = (Code.INTERNAL, Code.UNKNOWN)
    await check_final(lab, "", *(after_two(status(code, message="incident 7")) for code in codes))


@case
async def details_removed(lab: Lab) -> None:
    """Fail, and never retry in a loop, after another code without an ErrorReason: a proxy has removed the details."""
    codes = (Code.ABORTED, Code.FAILED_PRECONDITION, Code.INVALID_ARGUMENT, Code.ALREADY_EXISTS)
    await check_final(lab, "", *(after_two(status(code)) for code in codes))


@case
async def foreign_details(lab: Lab) -> None:
    """Treat an ErrorInfo of another domain as no ErrorReason."""
    refusal = status(Code.UNAVAILABLE, "STREAM_DISPLACED")
    refusal.details[0].value = refusal.details[0].value.replace(b"lavant.dev", b"proxy.test")
    await check_resumed(lab, after_two(refusal))


@case
async def backoff_grows(lab: Lab) -> None:
    """Wait longer before each call to a server that refuses them: 0.1 s at first, doubled each time."""
    script = Script([plays(then=UNAVAILABLE)] * 100)
    read = (await lab.client(await lab.scripted(script))).read()
    await asked(script, 2)
    began, before = time.monotonic(), len(script.requests)
    await lab.pause(2)
    calls = (len(script.requests) - before) / (time.monotonic() - began) * 2
    require(0 < calls <= 8, f"{calls:.0f} calls within 2 s: the backoff does not grow, or the reader has stopped")
    await read.cancel()


@case
async def page_of_proxy(lab: Lab) -> None:
    """Resume after a proxy has answered with HTTP status 503 and a page in HTML."""
    server = await lab.server()
    await ended_run(server.stubs)
    async with WebPage(server.target, pages=2) as proxy:
        read = (await lab.client(proxy.target)).read()
        await read.done()
    expect(sequences(read.received), [1, 2, 3, 4], "the sequences")
    require(proxy.shown == 2, f"the page was shown {proxy.shown} times")


@case
async def ends_without_progress(lab: Lab) -> None:
    """Back off from a server that opens each call and ends it at once, without an event."""
    script = Script([plays(opened(), planned(pb.STREAM_END_REASON_MAX_AGE))] * 400)
    read = (await lab.client(await lab.scripted(script))).read()
    await asked(script, 1)
    await lab.pause(2)
    require(len(script.requests) <= 12, f"{len(script.requests)} calls within 2 s")
    await read.cancel()
