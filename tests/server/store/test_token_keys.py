"""Keys of a store that sign tokens: which one signs, which ones verify, and when."""

from lavant.server.store.token_keys import ACTIVATION_DELAY, TokenKey, decode, encode, first_key, rotated, usable

HOUR = 3600.0
SECOND = 1_000_000_000
NOW = 1_000_000 * SECOND
DELAY = round(ACTIVATION_DELAY * SECOND)


def test_new_key_signs_after_every_server_has_read_it() -> None:
    old = first_key()
    keys = rotated([old], NOW, HOUR)
    assert list(usable(keys, NOW)) == ["store", "store-2"]
    assert list(usable(keys, NOW + DELAY)) == ["store-2", "store"]


def test_earlier_keys_verify_until_they_expire() -> None:
    keys = rotated(rotated([first_key()], NOW, HOUR), NOW + 60 * SECOND, 10 * HOUR)
    assert [key.id for key in keys] == ["store", "store-2", "store-3"]
    assert list(usable(keys, NOW + 3_601 * SECOND)) == ["store-3", "store-2"]
    assert list(usable(keys, NOW + 40_000 * SECOND)) == ["store-3"]
    assert [key.id for key in rotated(keys, NOW + 40_000 * SECOND, HOUR)] == ["store-3", "store-4"]


def test_rotation_at_once_leaves_the_new_key_alone() -> None:
    (new,) = rotated([first_key()], NOW, 0)
    assert list(usable([new], NOW)) == ["store-2"]


def test_first_key_of_a_store_without_keys_signs_at_once() -> None:
    (key,) = rotated([], NOW, HOUR)
    assert (key.id, key.signs_from_ns, key.expires_ns) == ("store", 0, None)


def test_keys_are_removed_after_the_time_that_they_verify() -> None:
    keys = rotated([first_key()], NOW, HOUR, replaced=False)
    assert [(key.id, key.expires_ns) for key in keys] == [("store", NOW + 3_600 * SECOND)]
    assert rotated(keys, NOW, 0, replaced=False) == []


def test_stored_form_is_read_again() -> None:
    keys = tuple(rotated([first_key()], NOW, HOUR))
    assert decode(encode(keys)) == keys
    assert decode(encode(())) == ()
    assert decode(b"k" * 32) == (TokenKey("store", b"k" * 32),)
    assert "secret" not in repr(keys)
