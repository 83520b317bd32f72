"""Keys of labels: a tenant uses a bounded number of them."""

from pathlib import Path
from typing import Any

import pytest
from google.rpc.error_details_pb2 import RetryInfo
from grpc import aio

from lavant.v1.run_pb2 import RunSettings
from lavant.v1.run_service_pb2 import CreateRunRequest, DeleteRunRequest
from support.calls import answer, publish, publishing, until
from support.clock import ManualClock
from support.events import run_finished, run_started
from support.server import Stubs, serving
from support.status import Refusal, refused, rejection


@pytest.fixture(params=["sqlite", pytest.param("jetstream", marks=pytest.mark.nats)])
def store(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Settings of a store."""
    return {} if request.param == "sqlite" else {"store": str(request.getfixturevalue("location"))}


async def create(stubs: Stubs, run_id: str, **labels: str) -> None:
    """Create a run with labels."""
    settings = RunSettings(name="weather", labels=labels)
    await stubs.runs.CreateRun(CreateRunRequest(run_id=run_id, settings=settings))


def check(refusal: Refusal) -> None:
    """Check what a refusal says."""
    assert refusal.metadata == {"kind": "label_keys", "limit": "3"}
    assert "'d' is another one; use a key that other runs have" in refusal.status.message
    assert not any(detail.Is(RetryInfo.DESCRIPTOR) for detail in refusal.status.details)


async def test_keys_of_labels_beyond_the_bound_are_refused(tmp_path: Path, store: dict[str, Any]) -> None:
    async with serving(tmp_path, max_label_keys=3, **store) as server:
        await create(server.stubs, "one", a="1", b="2")
        await create(server.stubs, "two", b="3", c="4")
        with refused("QUOTA_EXCEEDED") as refusal:
            await create(server.stubs, "three", c="5", d="6")
        check(refusal)
        await create(server.stubs, "three", a="7", c="8")  # new values of the same keys
        await create(server.stubs, "one", a="1", b="2")
        await create(server.stubs, "four")
        async with publishing(server.stubs) as call:
            settings = RunSettings(name="weather", labels={"d": "1"})
            await publish(call, [run_started()], run_id="five", create=settings)
            check(rejection((await answer(call)).rejection, "QUOTA_EXCEEDED"))
            settings = RunSettings(name="weather", labels={"a": "1"})
            await publish(call, [run_started()], run_id="five", create=settings)
            assert (await answer(call)).receipt.last_sequence == 1


async def test_keys_of_runs_that_a_quota_refuses_are_not_counted(
    tmp_path: Path, store: dict[str, Any], clock: ManualClock
) -> None:
    async with serving(tmp_path, clock=clock, max_label_keys=3, tenant_runs_per_second=1, **store) as server:
        await create(server.stubs, "one", a="1")
        await create(server.stubs, "two")
        with refused("QUOTA_EXCEEDED") as refusal:
            await create(server.stubs, "three", b="1", c="1")
        assert refusal.metadata["quota"] == "runs_per_second"
        async with publishing(server.stubs) as call:
            settings = RunSettings(name="weather", labels={"b": "1", "c": "1"})
            await publish(call, [run_started()], run_id="four", create=settings)
            refusal = rejection((await answer(call)).rejection, "QUOTA_EXCEEDED")
        assert refusal.metadata["quota"] == "runs_per_second"
        clock.advance(1)
        await create(server.stubs, "five", d="1", e="1")


async def test_keys_of_deleted_runs_make_room_for_others(
    tmp_path: Path, store: dict[str, Any], clock: ManualClock
) -> None:
    async with serving(tmp_path, clock=clock, max_label_keys=3, **store) as server:
        for key in "abc":
            await create(server.stubs, key, **{key: "1"})
    async with serving(tmp_path, clock=clock, max_label_keys=3, **store) as server:
        await create(server.stubs, "again", a="1")  # from now on the server knows the keys

        async def admits(key: str) -> bool:
            try:
                await create(server.stubs, f"new-{key}", **{key: "1"})
            except aio.AioRpcError:
                clock.advance(5)  # until the keys are read again
                return False
            return True

        async def refuses() -> bool:
            return not await admits("d")

        await until(refuses)
        async with publishing(server.stubs) as call:
            await publish(call, [run_started(), run_finished()], run_id="b")
            await answer(call)
        await server.stubs.runs.DeleteRun(DeleteRunRequest(run_id="b"))

        async def admits_another() -> bool:
            return await admits("e")

        await until(admits_another)
