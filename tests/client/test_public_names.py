"""What users may import."""

import lavant.client
from lavant.client import _errors


def test_names_are_sorted_and_exist() -> None:
    names = lavant.client.__all__
    assert names == sorted(names)
    assert all(hasattr(lavant.client, name) for name in names)


def test_all_errors_are_public_and_drawn() -> None:
    errors = [name for name, kind in vars(_errors).items() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert set(errors) <= set(lavant.client.__all__)
    assert all(f" {name}" in str(_errors.__doc__) for name in errors)
