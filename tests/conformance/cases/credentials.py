"""Credentials: what is sent, when it is renewed, and what is final."""

import time
from pathlib import Path

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from conformance.lab import Lab
from conformance.scripts import RUN_FINISHED, plays, sequences, whole
from conformance.suite import case, expect, require
from lavant.v1 import event_service_pb2 as pb
from lavant.v1.access_service_pb2 import CreateKeyRequest, Key
from support.calls import append, create, ended_run
from support.credentials import create_key
from support.events import a_run_of, run_started
from support.scripted import Script, end, events, opened, status
from support.server import Server

REFUSED = status(grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
SCOPES = ("runs:read", "runs:publish")


def token_file(lab: Lab, text: str) -> Path:
    """Write the credential that the client is to send."""
    path = lab.folder / "token"
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    fresh.replace(path)
    return path


async def closed_server(lab: Lab) -> Server:
    """Serve for callers with API keys."""
    return await lab.server(auth=["keys"], init_key=True)


@case
async def credential_of_every_call(lab: Lab) -> None:
    """Send the credential with every call."""
    script = Script([plays(opened(), events(1)), whole(2)])
    program = await lab.client(await lab.scripted(script), token_file=str(token_file(lab, "abc")))
    await program.read().done()
    expect(script.credentials, ["abc", "abc"], "the credentials of the calls")


@case
async def credential_that_is_refused(lab: Lab) -> None:
    """Obtain another credential after UNAUTHENTICATED, and retry once: the stream is resumed with its token."""
    path = token_file(lab, "old")
    script = Script([plays(opened(), events(1), then=REFUSED), plays(opened(), events(2, last=True), RUN_FINISHED)])
    program = await lab.client(await lab.scripted(script), token_file=str(path))
    read = program.read(hold=True)
    await read.events(1)
    token_file(lab, "new")
    read.command("next")
    await read.events(2)
    read.command("next")
    await read.done()
    expect(sequences(read.received), [1, 2], "the sequences")
    expect(script.requests[1].resume_token, "t1", "the token of the second call")


@case
async def credential_that_stays_refused(lab: Lab) -> None:
    """Fail with UNAUTHENTICATED if another credential is refused as well."""
    script = Script([plays(then=REFUSED)] * 20)
    program = await lab.client(await lab.scripted(script), token_file=str(token_file(lab, "bad")))
    await program.read().fails("UNAUTHENTICATED", limit=10)
    require(len(script.requests) <= 3, f"{len(script.requests)} calls with credentials that are refused")


@case
async def missing_credential(lab: Lab) -> None:
    """Fail with UNAUTHENTICATED without a credential, in reads, publishing and calls."""
    server = await closed_server(lab)
    program = await lab.client(server.target)
    await program.read().fails("UNAUTHENTICATED")
    await program.begin("get_run", run="run").fails("UNAUTHENTICATED")
    publication = await program.publish()
    publication.flush()
    await publication.operation.fails("UNAUTHENTICATED")


@case
async def missing_scope(lab: Lab) -> None:
    """Fail with PERMISSION_DENIED where the credential does not allow a call, without a retry."""
    server = await closed_server(lab)
    await ended_run(server.stubs)
    _, secret = await create_key(server.stubs, "runs:read")
    program = await lab.client(server.target, token_file=str(token_file(lab, secret)))
    await program.read().done()
    await program.begin("cancel_run", run="run").fails("PERMISSION_DENIED")
    publication = await program.publish("other")
    publication.flush()
    await publication.operation.fails("PERMISSION_DENIED")


@case
async def take_over_without_scope(lab: Lab) -> None:
    """Fail with PERMISSION_DENIED when the lease is another principal's, and `take_over` is not allowed."""
    server = await closed_server(lab)
    await create(server.stubs)
    await append(server.stubs, [run_started()])
    _, one = await create_key(server.stubs, *SCOPES, name="one")
    _, other = await create_key(server.stubs, *SCOPES, name="other")
    holder = (await lab.client(server.target, token_file=str(token_file(lab, one)))).read()
    await holder.events(1)
    program = await lab.client(server.target, token_file=str(token_file(lab, other)))
    await program.read(take_over=True).fails("PERMISSION_DENIED")
    await append(server.stubs, a_run_of(4)[1:], first=2)
    await holder.done()


@case
async def credential_that_expires(lab: Lab) -> None:
    """Read on when the credential expires in the middle of a stream, with the next one: nothing is missed."""
    server = await closed_server(lab)
    await create(server.stubs)
    await append(server.stubs, [run_started()])
    program = await lab.client(server.target, token_file=str(token_file(lab, "none yet")))
    expiry = Timestamp(seconds=int(time.time()) + 4)
    key = Key(name="reader", scopes=SCOPES, expire_time=expiry)
    first = (await server.stubs.access.CreateKey(CreateKeyRequest(key=key))).secret
    _, second = await create_key(server.stubs, *SCOPES, name="reader")
    token_file(lab, first)
    read = program.read()
    await read.events(1)
    token_file(lab, second)
    await lab.pause(max(0.0, expiry.seconds + 0.5 - time.time()))
    await append(server.stubs, a_run_of(6)[1:], first=2)
    await read.done()
    expect(sequences(read.received), [*range(1, 7)], "the sequences")


@case
async def end_of_credential(lab: Lab) -> None:
    """Reconnect after the end with reason CREDENTIAL_EXPIRED, once `retry_delay` has passed."""
    last = end(pb.STREAM_END_REASON_CREDENTIAL_EXPIRED, reconnect=True)
    last.end.retry_delay.FromMilliseconds(300)
    script = Script([plays(opened(), events(1), last), whole(2)])
    read = (await lab.client(await lab.scripted(script), token_file=str(token_file(lab, "abc")))).read()
    await read.done()
    expect(script.requests[1].resume_token, "te", "the token of the second call")
