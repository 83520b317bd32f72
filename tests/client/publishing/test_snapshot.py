"""Values are recorded without being touched: what can be read once, called or awaited stays as it was."""

import asyncio
import collections
import dataclasses
import datetime
import decimal
import enum
import io
import itertools
import json
import sqlite3
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, RootModel, SecretStr
from pydantic_core import to_json

from lavant.client._wire.json_text import encode
from lavant.client._wire.snapshot import MAX_ITEMS, is_plain, snapshot
from lavant.contract.limits import MAX_JSON_DEPTH, MAX_VALUE_BYTES
from lavant.contract.values import is_json


def encoded(value: object) -> Any:
    text = encode(value)
    assert is_json(text)
    return json.loads(text)


def lines() -> Iterator[str]:
    yield "1"
    yield "2"


class Hostile:
    """Fails whatever is done with it."""

    def _fail(self, *_: object) -> Any:
        raise SystemError("touched")

    __repr__ = __str__ = __iter__ = __len__ = __eq__ = __hash__ = __bool__ = __getattr__ = __call__ = _fail
    __class__ = property(_fail)


class HostileDict(dict[str, int]):
    def items(self) -> Any:
        raise SystemError("touched")

    __iter__ = keys = values = __len__ = items


class HostileList(list[object]):
    def __iter__(self) -> Any:
        raise SystemError("touched")

    __len__ = __iter__


class HostileText(str):
    __slots__ = ()

    def __str__(self) -> Any:
        raise SystemError("touched")

    __len__ = __iter__ = encode = __str__  # type: ignore[assignment]


class HostileNumber(int):
    def __index__(self) -> Any:
        raise SystemError("touched")

    __int__ = __repr__ = __str__ = __index__


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Point:
    x: int
    rest: object


@dataclasses.dataclass(slots=True)
class Slotted:
    x: int


class Model(BaseModel):
    x: int = 1
    key: SecretStr = SecretStr("hunter2")
    hidden: str = Field(default="hidden", exclude=True)


class Numbers(RootModel[list[int]]):
    pass


@pytest.mark.parametrize(
    "make",
    [
        lines,
        lambda: map(str, [1, 2]),
        lambda: iter("12"),
        lambda: io.StringIO("1\n2\n"),
        lambda: zip("12", strict=True),
        lambda: sqlite3.connect(":memory:").execute("values ('1'), ('2')"),
    ],
    ids=["generator", "map", "iterator", "file", "zip", "cursor"],
)
@pytest.mark.parametrize("within", [lambda it: it, lambda it: {"rows": [it]}, lambda it: Point(1, it)])
def test_what_can_be_read_once_is_left_to_the_application(
    make: Callable[[], Any], within: Callable[[Any], object]
) -> None:
    rows = make()
    assert '"type":' in encode(within(rows))
    assert [str(row[0] if isinstance(row, tuple) else row).strip() for row in rows] == ["1", "2"]


def test_a_coroutine_is_not_awaited() -> None:
    coroutine = asyncio.sleep(0)
    assert encoded(coroutine) == {"type": "coroutine"}
    coroutine.close()


def test_an_endless_iterator_does_not_hang() -> None:
    assert encoded(itertools.count()) == {"type": "itertools.count"}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (HostileDict(a=1), {"a": 1}),
        (HostileList([1, Hostile()]), [1, {"type": f"{__name__}.Hostile"}]),
        (HostileText("text"), "text"),
        (HostileNumber(5), 5),
        ({HostileText("a"): Hostile()}, {"a": {"type": f"{__name__}.Hostile"}}),
        (Colour.RED, "red"),
        (Point(1, Slotted(2)), {"x": 1, "rest": {"x": 2}}),
        (Model(), {"x": 1, "key": "**********"}),
        (Numbers([1, 2]), [1, 2]),
        ({1: "a", "1": "b", None: "c", (1, 2): "d"}, {"1": "a", "1~2": "b", "null": "c", "1, 2": "d"}),
        (collections.deque([1]), [1]),
        ({1}, [1]),
        (range(3), [0, 1, 2]),
        (types.MappingProxyType({"a": 1}), {"a": 1}),
        (collections.UserDict(a=1), {"a": 1}),
        (types.SimpleNamespace(a=1), {"a": 1}),
        (decimal.Decimal("1.50"), "1.50"),
        (datetime.timedelta(seconds=90), "PT1M30S"),
        (float("nan"), None),
        (2**70, 2**70),
        (10**5_000, {"type": "int", "bits": 16_610}),
        ("\ud83d", "\ufffd"),
        (b"ab", "YWI="),
        (ValueError("no", object()), {"type": "ValueError", "message": "no, <object>"}),
        (len, {"type": "builtin_function_or_method", "name": "len"}),
    ],
    ids=map(str, itertools.count()),  # a name made of the value would touch it
)
def test_a_value_is_encoded_by_its_type(value: object, expected: object) -> None:
    assert encoded(value) == expected


def test_a_value_that_contains_itself_is_described_there() -> None:
    value: dict[str, object] = {"a": 1}
    value["self"] = [value]
    assert encoded(value) == {"a": 1, "self": [{"type": "dict", "contains": "itself"}]}


def test_a_value_that_is_shared_is_encoded_each_time() -> None:
    shared = [1]
    assert encoded([shared, shared]) == [[1], [1]]


def test_depth_is_bounded() -> None:
    value: object = 1
    for _ in range(10_000):
        value = [value]
    text = encode(value)
    assert is_json(text)
    assert text.count("[") == MAX_JSON_DEPTH


LARGE: list[object] = ["x" * (2 << 20), "\u20ac" * (1 << 20), [0] * (MAX_ITEMS * 10), [["x" * 100] * 100] * 200]


@pytest.mark.parametrize("value", LARGE, ids=["text", "wide text", "many items", "much in all"])
def test_size_is_bounded(value: object) -> None:
    text = encode(value)
    assert len(text.encode()) < MAX_VALUE_BYTES
    assert json.loads(text)["truncated"] is True


BY_STACK_LEFT = ({"a": [1]}, {"type": "dict"}, {"a": {"type": "list"}}, {"a": [{"type": "int"}]})


def test_a_full_stack_costs_the_value_alone() -> None:
    def at_depth(depth: int) -> str:
        return at_depth(depth - 1) if depth else encode({"a": [1]})

    for depth in range(800, 1_000):
        try:
            assert json.loads(at_depth(depth)) in BY_STACK_LEFT
        except RecursionError:
            break


_json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(_json_values)
def test_json_is_encoded_as_it_is(value: object) -> None:
    assert encoded(value) == value


_anything = st.recursive(
    st.none() | st.integers() | st.floats() | st.characters() | st.binary() | st.dates() | st.decimals(),
    lambda inner: st.lists(inner) | st.dictionaries(st.integers() | st.text(), inner) | st.builds(Point, inner, inner),
)


@given(_anything)
def test_whatever_is_encoded_is_json_that_the_server_takes(value: object) -> None:
    assert is_json(encode(value))


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(PLAIN)
def test_a_plain_value_is_encoded_as_its_snapshot(value: object) -> None:
    assert encode(value) == to_json(snapshot(value)[0], inf_nan_mode="null").decode()


def test_what_needs_a_snapshot_is_not_plain() -> None:
    deep: list[object] = []
    for _ in range(MAX_JSON_DEPTH):
        deep = [deep]
    cyclic: dict[str, object] = {}
    cyclic["self"] = [cyclic]
    others = ({1: 2}, (1,), {1}, b"x", lines(), Hostile(), HostileDict(), HostileList(), deep, cyclic, 1 << 64)
    assert not any(map(is_plain, others))
    assert not is_plain([0] * (MAX_ITEMS + 1))
    assert is_plain({"a": [None, True, 1, 1.5, "x", {}]})
