"""Long work on the event loop: one slice in an iteration, of callers in turn."""

import asyncio
from collections.abc import Iterator

import pytest

from lavant.server import slices
from lavant.server.slices import in_slices
from lavant.server.turns import Origin, serve
from support.calls import until


class Iterations:
    """Counts the iterations of the event loop."""

    def __init__(self) -> None:
        self.count = 0
        self._loop = asyncio.get_running_loop()
        self._next()

    def _next(self) -> None:
        self.count += 1
        self._loop.call_soon(self._next)


@pytest.fixture
def piecemeal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each piece be a slice of its own."""
    monkeypatch.setattr(slices, "SLICE", 0.0)


async def work(tenant: str, pieces: int, done: list[tuple[str, int]], iterations: Iterations) -> None:
    serve(Origin(tenant))

    def make() -> Iterator[int]:
        for piece in range(pieces):
            done.append((tenant, iterations.count))
            yield piece

    assert await in_slices(make()) == list(range(pieces))


@pytest.mark.usefixtures("piecemeal")
async def test_an_iteration_of_the_loop_has_one_slice_whoever_it_is_for() -> None:
    done: list[tuple[str, int]] = []
    iterations = Iterations()
    await asyncio.gather(*(work(tenant, 20, done, iterations) for tenant in ("a", "b", "c")))
    at = [iteration for _, iteration in done]
    assert len(at) == len(set(at)) == 60


@pytest.mark.usefixtures("piecemeal")
async def test_a_tenant_with_many_readers_delays_anothers_work_by_a_slice() -> None:
    done: list[tuple[str, int]] = []
    iterations = Iterations()
    flood = [asyncio.create_task(work("flood", 10, done, iterations)) for _ in range(20)]
    await asyncio.sleep(0)
    await work("one", 3, done, iterations)
    names = [tenant for tenant, _ in done]
    assert names.count("flood") <= 8
    await asyncio.gather(*flood)


async def test_work_that_fits_in_a_slice_is_done_at_once() -> None:
    iterations = Iterations()
    before = iterations.count
    assert await in_slices(iter("abc")) == ["a", "b", "c"]
    assert iterations.count == before


@pytest.mark.usefixtures("piecemeal")
async def test_work_of_a_caller_that_has_gone_stops_and_others_go_on() -> None:
    done: list[tuple[str, int]] = []
    iterations = Iterations()
    gone = asyncio.create_task(work("gone", 1_000_000, done, iterations))
    other = asyncio.create_task(work("other", 5, done, iterations))
    await until(lambda: len(done) >= 4)
    before = [tenant for tenant, _ in done].count("gone")
    gone.cancel()
    await asyncio.wait((gone, other))
    assert [tenant for tenant, _ in done].count("gone") <= before + 1
    assert [tenant for tenant, _ in done].count("other") == 5


async def test_a_failure_in_the_work_frees_the_turn() -> None:
    def fails() -> Iterator[int]:
        yield 1
        raise LookupError

    with pytest.raises(LookupError):
        await in_slices(fails())
    async with asyncio.timeout(30):
        assert await in_slices([1]) == [1]
