"""Delays between tries."""

from lavant.client._wire.status import Backoff


def test_delays_grow_to_the_maximum() -> None:
    backoff = Backoff(initial=1.0, maximum=5.0, uniform=lambda low, high: high)
    assert [backoff.next() for _ in range(5)] == [1.0, 2.0, 4.0, 5.0, 5.0]


def test_delays_are_spread_over_their_upper_half() -> None:
    backoff = Backoff(initial=1.0, uniform=lambda low, high: low)
    assert [backoff.next(), backoff.next()] == [0.5, 1.0]


def test_progress_resets_the_delay() -> None:
    backoff = Backoff(initial=1.0, uniform=lambda low, high: high)
    backoff.next()
    backoff.next()
    backoff.reset()
    assert backoff.next() == 1.0


def test_what_the_server_asks_for_is_the_least() -> None:
    backoff = Backoff(initial=1.0, uniform=lambda low, high: high)
    assert backoff.next(at_least=10.0) == 11.0
