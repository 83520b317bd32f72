"""The checker catches servers that break their promises."""

from collections.abc import Callable
from pathlib import Path

import pytest

from chaos.checker import stored_events, violations
from chaos.history import History, Seen
from support.calls import append, create, listed
from support.events import a_run_of, custom
from support.server import serving

Log = list[Seen]


def good(size: int = 20) -> tuple[History, Log, Log]:
    """A run without any fault: what was said, and the three logs of it."""
    log = [Seen(number, f"said-{number}") for number in range(1, size + 1)]
    history = History(
        invoked={seen.said for seen in log} | {"never answered"},
        acknowledged={seen.said: seen.sequence for seen in log[:-2]},
        streamed=list(log),
        first_after_token=[(0, 1), (7, 8)],
    )
    return history, list(log), list(log)


def test_a_good_history_passes() -> None:
    assert violations(*good()) == []


def acknowledged_before_commit(history: History, listed: Log, stored: Log) -> None:
    """The last acknowledged event died with the server."""
    del history.streamed[17:], listed[17:], stored[17:]


def one_event_dropped_from_the_stream(history: History, _listed: Log, _stored: Log) -> None:
    del history.streamed[9]


def one_event_dropped_and_the_rest_renumbered(history: History, listed: Log, stored: Log) -> None:
    for log in (history.streamed, listed, stored):
        del log[9]
        log[:] = [Seen(number, seen.said) for number, seen in enumerate(log, 1)]


def repeated_on_resume(history: History, _listed: Log, _stored: Log) -> None:
    history.streamed.insert(8, history.streamed[7])


def a_resent_batch_stored_twice(history: History, listed: Log, stored: Log) -> None:
    for log in (history.streamed, listed, stored):
        log += [Seen(21, "said-19"), Seen(22, "said-20")]


def out_of_order(history: History, _listed: Log, _stored: Log) -> None:
    history.streamed[4], history.streamed[5] = history.streamed[5], history.streamed[4]


def a_token_that_is_off_by_one(history: History, _listed: Log, _stored: Log) -> None:
    history.first_after_token.append((12, 14))


def an_invented_event(history: History, listed: Log, stored: Log) -> None:
    for log in (history.streamed, listed, stored):
        log.append(Seen(21, "nobody said this"))


def answered_from_memory_alone(_history: History, _listed: Log, stored: Log) -> None:
    del stored[15:]


def another_event_in_its_place(_history: History, listed: Log, _stored: Log) -> None:
    listed[3] = Seen(4, "never answered")


@pytest.mark.parametrize(
    "mutate",
    [
        acknowledged_before_commit,
        one_event_dropped_from_the_stream,
        one_event_dropped_and_the_rest_renumbered,
        repeated_on_resume,
        a_resent_batch_stored_twice,
        out_of_order,
        a_token_that_is_off_by_one,
        an_invented_event,
        answered_from_memory_alone,
        another_event_in_its_place,
    ],
)
def test_a_mutant_is_caught(mutate: Callable[[History, Log, Log], None]) -> None:
    history, listed_log, stored_log = good()
    mutate(history, listed_log, stored_log)
    assert violations(history, listed_log, stored_log)


async def test_raw_storage_is_read_as_it_is(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        for run_id in ("run", "other"):
            await create(server.stubs, run_id)
            await append(server.stubs, a_run_of(9, finished=False), run_id=run_id)
            await append(server.stubs, [custom()], run_id=run_id, first=10)
        expected = [Seen(event.sequence, event.event_id) for event in await listed(server.stubs)]
    assert stored_events(tmp_path / "lavant.db", "run") == expected
    assert len(expected) == 10
