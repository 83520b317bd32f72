"""Who may call which RPC: each of them with every kind of credential. New RPCs are covered, or fail here."""

import re
from typing import Any

import pytest
from grpc import StatusCode, aio
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from lavant.server.app.lifecycle import SERVICES
from lavant.server.auth.access_tokens import TOKEN_SCOPES
from lavant.server.auth.principal import Scope
from server.access.credentials import OTHER, OWNER, Everyone, Values, bearer
from support.calls import PATIENCE
from support.credentials import create_key
from support.every_call import REQUESTS, RPCS, Answer, answer_of, refusal_of
from support.rules import create_rule, delete_rule, finish
from support.scores import record
from support.server import Stubs, connected

pytestmark = pytest.mark.asyncio(loop_scope="module")

# What docs/access.md says that each scope allows. GetPrincipal needs none.
ALLOWED = {
    Scope.RUNS_PUBLISH: "CreateRun AppendEvents PublishEvents GetRun WaitRun",
    Scope.RUNS_READ: "ListRuns WatchRuns GetRun WaitRun StreamEvents ListEvents CreateAccessToken",
    Scope.RUNS_ADMIN: "CancelRun DeleteRun",
    Scope.RULES_READ: "GetRule ListRules",
    Scope.RULES_WRITE: "CreateRule UpdateRule DeleteRule BackfillRule",
    Scope.SCORES_READ: "ListScores QueryScores CompareScores CreateAccessToken",
    Scope.SCORES_WRITE: "RecordScore",
    Scope.SAMPLES_WORK: "SampleRuns CompleteSample GetRule",
    Scope.KEYS_ADMIN: "CreateKey ListKeys RevokeKey",
}
# Calls that name single runs: to a credential that is restricted to others, those do not exist.
OF_RUNS = {
    rpc
    for scope, rpcs in ALLOWED.items()
    if scope.startswith(("runs:", "scores:"))
    for rpc in rpcs.split()
}  # fmt: skip
REFLECTION, REFLECTION_V1 = (
    f"/grpc.reflection.{one}.ServerReflection/ServerReflectionInfo" for one in ("v1alpha", "v1")
)
# Exports of OpenTelemetry, which publish: tests/server/otlp has what is done with their requests.
OTLP = [
    f"/opentelemetry.proto.collector.{kind}.v1.{kind.title()}Service/Export" for kind in ("trace", "logs", "metrics")
]
HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"]
FREE = {"CreateRun", "CreateRule"}  # what they name must not exist yet
GRANTED = {"CreateKey": {Scope.RUNS_READ}, "CreateAccessToken": {Scope.RUNS_READ}}  # which nobody grants without it
# What is answered to whoever may call, as the run has ended, and the sample is not theirs.
EXPECTED = {"": set(REQUESTS), "SAMPLE_LOST": {"CompleteSample"}, "RUN_SEALED": {"PublishEvents", "CancelRun"}}


async def refused_at_once(channel: aio.Channel, method: str, values: Values) -> Answer:
    """Begin a call and send no request; return how it is refused."""
    call = begun(channel, method, values)
    with pytest.raises(aio.AioRpcError) as caught:
        await call.read()
    return refusal_of(caught.value)


def begun(channel: aio.Channel, method: str, values: Values) -> Any:
    """Begin a call with credentials, of which requests are written as bytes."""
    return channel.stream_stream(method)(timeout=PATIENCE, metadata=[("authorization", value) for value in values])


async def make(stubs: Stubs, rpc: str, name: str) -> str:
    """Make what a request of an RPC names, and return the name."""
    if rpc in FREE:
        return name
    if rpc in ("CreateKey", "ListKeys"):  # which name a tenant
        return OWNER
    if rpc == "RevokeKey":
        return (await create_key(stubs, Scope.RUNS_READ))[0].key_id
    if RPCS[rpc][0] in ("rules", "evaluations"):
        await create_rule(stubs, name)
    await finish(stubs, [name], conversation_id=name, labels={"of": "someone"})
    await record(stubs, name, run_id=name)
    return name


def comparable(answer: Answer, name: str) -> str:
    """Return the text of an answer without the ID that was asked for, and without what was created."""
    return re.sub(r'(secret|key_id|token): "[^"]+"|seconds: \d+', "NEW", answer.text).replace(name, "ID")


async def test_every_rpc_is_in_the_tables(everyone: Everyone) -> None:
    allowed = {rpc: {scope for scope, rpcs in ALLOWED.items() if rpc in rpcs.split()} for rpc in RPCS}
    expected = {path: allowed[rpc] for rpc, (_, path) in RPCS.items()}
    expected |= {path: {Scope.RUNS_PUBLISH} for path in OTLP}
    assert {path: set(scopes) for path, scopes in everyone.tables.scopes.items()} == expected
    assert {path.split("/")[1] for path in expected if path not in OTLP} == set(SERVICES)
    assert set(REQUESTS) == set(RPCS)


@pytest.mark.parametrize(
    "path", [*(path for _, path in RPCS.values()), *OTLP, REFLECTION, REFLECTION_V1, "/lavant.v1.RunService/Other"]
)
async def test_bad_credential_is_refused_before_the_request(everyone: Everyone, path: str) -> None:
    async with connected(everyone.server.target) as stubs:
        for kind, values in everyone.refused.items():
            answer = await refused_at_once(stubs.channel, path, values)
            assert answer.reason == "UNAUTHENTICATED", (kind, answer)
            assert "acme" not in answer.text


@pytest.mark.parametrize("path", [*(path for _, path in RPCS.values()), *OTLP])
async def test_narrow_credential_is_refused_before_the_request(everyone: Everyone, path: str) -> None:
    needed = everyone.tables.scopes[path]
    if not needed:
        return
    _, too_few = await everyone.caller(set(Scope) - {*needed, Scope.TENANTS_ADMIN})
    narrow = [too_few] if TOKEN_SCOPES.intersection(needed) else [too_few, everyone.token]
    async with connected(everyone.server.target) as stubs:
        for key in narrow:
            answer = await refused_at_once(stubs.channel, path, bearer(key))
            assert answer.reason == "PERMISSION_DENIED", answer
            assert answer.refusal is not None
            assert answer.refusal.metadata == {"scope": needed[0]}


@pytest.mark.parametrize("rpc", RPCS)
async def test_credential_for_other_runs_is_answered_as_for_none(everyone: Everyone, rpc: str) -> None:
    owner, _ = await everyone.caller()
    restricted, key = await everyone.caller(restricted=True)
    if rpc not in OF_RUNS and rpc != "GetPrincipal":
        async with connected(everyone.server.target) as stubs:
            answer = await refused_at_once(stubs.channel, RPCS[rpc][1], bearer(key))
        assert answer.reason == "PERMISSION_DENIED"
        assert "restricted to some runs" in answer.text
        return
    theirs = await make(owner, rpc, f"{rpc}-theirs")
    nobodys = theirs[::-1]  # as long, so that errors that have them differ in nothing else
    answers = [await answer_of(restricted, rpc, REQUESTS[rpc](name)) for name in (theirs, nobodys)]
    assert comparable(answers[0], theirs) == comparable(answers[1], nobodys)
    assert "weather" not in answers[0].text


@pytest.mark.parametrize("rpc", RPCS)
async def test_other_tenant_is_answered_as_for_none(everyone: Everyone, rpc: str) -> None:
    owner, _ = await everyone.caller()
    other, _ = await everyone.caller(tenant=OTHER)
    theirs = await make(owner, rpc, f"{rpc}-foreign")
    nobodys = theirs[::-1]
    answers = [await answer_of(other, rpc, REQUESTS[rpc](name)) for name in (theirs, nobodys)]
    assert comparable(answers[0], theirs) == comparable(answers[1], nobodys)
    assert "someone" not in answers[0].text
    assert "acme" not in answers[0].text


@pytest.mark.parametrize("rpc", RPCS)
async def test_right_credential_is_served(everyone: Everyone, rpc: str) -> None:
    owner, _ = await everyone.caller()
    for scope in everyone.tables.scopes[RPCS[rpc][1]] or Scope:
        caller, _ = await everyone.caller({scope, *GRANTED.get(rpc, ())})
        name = await make(owner, rpc, f"{rpc}-{scope.replace(':', '-')}")
        answer = await answer_of(caller, rpc, REQUESTS[rpc](name))
        assert rpc in EXPECTED.get(answer.reason, ()), answer
        if RPCS[rpc][0] in ("rules", "evaluations") and rpc != "DeleteRule":
            await delete_rule(owner, name)


async def test_reflection_needs_a_valid_credential_of_any_scope(everyone: Everyone) -> None:
    _, key = await everyone.caller({Scope.METRICS}, restricted=True)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    async with connected(everyone.server.target) as stubs:
        call = begun(stubs.channel, REFLECTION, bearer(key))
        await call.write(request.SerializeToString())
        response = reflection_pb2.ServerReflectionResponse.FromString(await call.read())
    assert {one.name for one in response.list_services_response.service} > set(SERVICES)


@pytest.mark.parametrize("name", [method.name for method in HEALTH.methods])
async def test_health_is_answered_whatever_the_credential(everyone: Everyone, name: str) -> None:
    async with connected(everyone.server.target) as stubs:
        method: Any = stubs.channel.unary_stream(f"/{HEALTH.full_name}/{name}")
        for values in everyone.refused.values():
            call = method(b"", timeout=PATIENCE, metadata=[("authorization", value) for value in values])
            assert isinstance(await call.read(), bytes)
            call.cancel()


@pytest.mark.parametrize(
    "path", [*(f"/{HEALTH.full_name}/{name}" for name in ("Check", "Watch")), REFLECTION, REFLECTION_V1]
)
async def test_malformed_request_shows_nothing_of_the_inside(
    everyone: Everyone, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    _, key = await everyone.caller({Scope.METRICS})
    async with connected(everyone.server.target) as stubs:
        call = begun(stubs.channel, path, bearer(key))
        await call.write(b"\xff\xff")
        with pytest.raises(aio.AioRpcError) as caught:
            await call.read()
    assert (caught.value.code(), caught.value.details()) == (StatusCode.INVALID_ARGUMENT, "the request is malformed")
    assert not caplog.records


async def test_unknown_method_is_unimplemented_for_valid_credentials(everyone: Everyone) -> None:
    caller, _ = await everyone.caller({Scope.METRICS})
    call: Any = caller.channel.unary_unary("/lavant.v1.RunService/Other")
    with pytest.raises(aio.AioRpcError) as caught:
        await call(b"", timeout=PATIENCE)
    assert caught.value.code() == StatusCode.UNIMPLEMENTED
