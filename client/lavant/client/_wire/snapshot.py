"""Plain copies of arbitrary values, made without side effects on them."""

import datetime
import decimal
import enum
import fractions
import gc
import ipaddress
import pathlib
import sys
import types
import uuid
from collections import UserDict, UserList, UserString, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from itertools import islice
from typing import Any, Final

from pydantic import BaseModel, SecretBytes, SecretStr
from pydantic_core import to_jsonable_python

from lavant.contract.limits import MAX_JSON_DEPTH
from lavant.contract.text import to_text

# More than an event can hold; a walk over more would only cost the application time.
MAX_ITEMS = 50_000
MAX_CHARACTERS = 8 << 20

TRUNCATED: Final = "is too large"
NESTED: Final = f"is nested deeper than {MAX_JSON_DEPTH}"
CYCLIC: Final = "contains itself"

_SCALARS = frozenset({types.NoneType, bool, int, float, str})
_LONGEST_INTEGER = 64  # bits; JSON writers need not write longer ones as they are
_PLAIN_MODULES = {"builtins", "_io"}


def snapshot(value: object) -> tuple[Any, str]:
    """Return a copy of a value made of dicts with text keys, lists, text, numbers, booleans and None.

    Beside it, what the copy lacks: empty if nothing, else TRUNCATED, NESTED or CYCLIC.

    Never raises. Nothing of the value is consumed, called, awaited, hashed or compared: containers are those of the
    standard library, read by their own code and not by an override; models, dataclasses and the like are read from
    their attributes. Everything else (iterators, generators, files, coroutines, objects of other libraries) is
    described by its type: `{"type": "generator"}`; so is what is nested deeper than MAX_JSON_DEPTH or contains itself.
    Copying stops at MAX_ITEMS and MAX_CHARACTERS.
    """
    walk = _Walk()
    try:
        copied = walk.copy(value)
    except Exception:  # as RecursionError, where the application has used up the stack
        return describe(value), NESTED
    return copied, TRUNCATED if walk.is_full else walk.flaw


def is_plain(value: object) -> bool:
    """Return whether a value is JSON already: dicts with text keys, lists and scalars, all of exactly these types.

    Its snapshot equals the value then, so none is needed. Walks level by level, without calling code of the value, and
    stops at the bounds of a snapshot, which also end the walk of a value that contains itself.
    """
    level: list[Any] = [value]
    items = 0
    for _ in range(MAX_JSON_DEPTH):
        inner: list[Any] = []
        for item in level:
            kind = type(item)
            if kind is dict:
                if not all(type(key) is str for key in item):
                    return False
                inner += item.values()
            elif kind is list:
                inner += item
            elif kind not in _SCALARS or (kind is int and item.bit_length() > _LONGEST_INTEGER):
                return False
        if not inner:
            return True
        items += len(inner)
        if items > MAX_ITEMS:
            return False
        level = inner
    return False


def describe(value: object, **more: object) -> dict[str, object]:
    """Return a description of a value that has no JSON: its type, and further facts."""
    kind = type(value)
    try:
        name = kind.__qualname__ if kind.__module__ in _PLAIN_MODULES else f"{kind.__module__}.{kind.__qualname__}"
    except Exception:  # a metaclass has its own idea of names
        name = "object"
    return {"type": to_text(name), **more}


class _Walk:
    """State of one copy: its size so far, and the containers being copied."""

    __slots__ = ("_active", "_characters", "_items", "flaw")

    def __init__(self) -> None:
        self.flaw = ""
        self._items = self._characters = 0
        self._active: set[int] = set()

    @property
    def is_full(self) -> bool:
        """Whether copying was stopped."""
        return self._items > MAX_ITEMS or self._characters > MAX_CHARACTERS

    def copy(self, value: Any) -> Any:
        """Return the copy of a value, or its description.

        The type decides, not isinstance, which reads the value's `__class__` and so makes lazy proxies load.
        """
        self._items += 1
        try:
            for kind in type(value).__mro__:
                if (writer := _WRITERS.get(kind)) is not None:
                    return writer(self, value)
        except Exception:
            return describe(value)
        return describe(value)

    def text(self, value: str) -> str:
        """Copy text, up to the bound."""
        size, room = str.__len__(value), max(0, MAX_CHARACTERS - self._characters)
        self._characters += size
        return to_text(value if size <= room else str.__getitem__(value, slice(room)))

    def data(self, value: bytes | bytearray | memoryview) -> Any:
        """Copy bytes as Base64."""
        view = memoryview(value).cast("B")
        room = max(0, MAX_CHARACTERS - self._characters)
        self._characters += len(view)
        return to_jsonable_python(bytes(view[:room]), bytes_mode="base64")

    def array(self, value: object, items: Iterable[object]) -> Any:
        """Copy the items of a container."""
        if (obstacle := self._enter(value)) is not None:
            return obstacle
        copied: list[Any] = []
        for item in items:
            if self.is_full:
                break
            copied.append(self.copy(item))
        self._active.discard(id(value))
        return copied

    def mapping(self, value: object, pairs: Iterable[tuple[object, object]]) -> Any:
        """Copy the items of a mapping, or the attributes of something."""
        if (obstacle := self._enter(value)) is not None:
            return obstacle
        copied: dict[str, Any] = {}
        for key, item in pairs:
            if self.is_full:
                break
            name = first = self._key(key)
            number = 1
            while name in copied:  # 1 and "1" are two keys in Python and one in JSON
                number += 1
                name = f"{first}~{number}"
            copied[name] = self.copy(item)
        self._active.discard(id(value))
        return copied

    def _enter(self, value: object) -> dict[str, object] | None:
        if id(value) in self._active:
            self.flaw = CYCLIC
            return describe(value, contains="itself")
        if len(self._active) >= MAX_JSON_DEPTH:
            self.flaw = self.flaw or NESTED
            return describe(value, truncated=True)
        self._active.add(id(value))
        return None

    def _key(self, key: object) -> str:
        plain = "null" if key is None else self.copy(key)
        if isinstance(plain, dict):
            return f"<{plain.get('type', 'object')}>"
        return ", ".join(map(to_text, plain)) if isinstance(plain, list) else to_text(plain)


def _integer(_walk: _Walk, value: int) -> Any:
    is_printable = not to_text(value).startswith("<")
    return int.__index__(value) if is_printable else describe(value, bits=int.bit_length(value))


def _model(walk: _Walk, model: BaseModel) -> Any:
    kind, own = type(model), _own(model)
    if kind.__pydantic_root_model__:
        return walk.copy(own.get("root"))
    known = kind.__pydantic_fields__
    shown = [(name, item) for name, item in own.items() if name not in known or not known[name].exclude]
    extra = _attribute(model, "__pydantic_extra__")
    return walk.mapping(model, [*shown, *extra.items()] if type(extra) is dict else shown)


def _object(walk: _Walk, value: object) -> Any:
    kind = type(value)
    if is_dataclass(kind):
        return walk.mapping(value, _attributes(value, [field.name for field in fields(kind)]))
    if isinstance(attrs := getattr(kind, "__attrs_attrs__", None), tuple):
        return walk.mapping(value, _attributes(value, [field.name for field in attrs]))
    if isinstance(struct := getattr(kind, "__struct_fields__", None), tuple):  # msgspec's
        return walk.mapping(value, _attributes(value, struct))
    numpy = sys.modules.get("numpy")
    if numpy is not None and issubclass(kind, numpy.generic):
        return item if isinstance(item := value.item(), bool | int | float | str) else describe(value)  # type: ignore[attr-defined]
    return describe(value)


def _named(_walk: _Walk, value: Any) -> Any:
    return describe(value, name=to_text(getattr(value, "__qualname__", None) or getattr(value, "__name__", None)))


def _error(_walk: _Walk, error: BaseException) -> Any:
    arguments = BaseException.args.__get__(error)  # type: ignore[attr-defined]
    return describe(error, message=", ".join(map(to_text, arguments)))


def _leaf(_walk: _Walk, value: object) -> Any:
    return to_jsonable_python(value)


def _own(value: object) -> Mapping[str, object]:
    own = object.__getattribute__(value, "__dict__")
    return own if type(own) is dict else {}


def _attributes(value: object, names: Iterable[str]) -> list[tuple[object, object]]:
    missing = object()
    return [(name, item) for name in names if (item := _attribute(value, name, missing)) is not missing]


def _attribute(value: object, name: str, default: object = None) -> object:
    """Return an attribute without running properties or `__getattr__`."""
    for kind in type(value).__mro__:
        member = kind.__dict__.get(name)
        if type(member) is types.MemberDescriptorType:
            try:
                return member.__get__(value)
            except AttributeError:
                return default
    return _own(value).get(name, default) if hasattr(type(value), "__dict__") else default


def _some(iterate: Callable[[Any], Iterable[Any]]) -> Callable[[_Walk, Any], Any]:
    """Copy a container that another thread may change: its items are taken in one step of the interpreter."""
    return lambda walk, value: walk.array(value, list(islice(iterate(value), MAX_ITEMS + 1)))


_WRITERS: dict[type, Callable[[_Walk, Any], Any]] = {
    types.NoneType: lambda _, value: value,
    bool: lambda _, value: value,
    float: lambda _, value: float.__float__(value),
    int: _integer,
    str: _Walk.text,
    bytes: lambda walk, value: walk.data(bytes.__getitem__(value, slice(MAX_CHARACTERS + 1))),
    bytearray: lambda walk, value: walk.data(bytearray.__getitem__(value, slice(MAX_CHARACTERS + 1))),
    memoryview: _Walk.data,
    **dict.fromkeys((SecretStr, SecretBytes), lambda *_: "**********"),
    enum.Enum: lambda walk, value: walk.copy(value._value_),
    complex: lambda _, value: complex.__repr__(value),
    **dict.fromkeys((datetime.date, datetime.time, datetime.timedelta, decimal.Decimal, uuid.UUID), _leaf),
    **dict.fromkeys((pathlib.PurePath, ipaddress.IPv4Address, ipaddress.IPv6Address, fractions.Fraction), _leaf),
    **dict.fromkeys((ipaddress.IPv4Network, ipaddress.IPv6Network), _leaf),
    dict: lambda walk, value: walk.mapping(value, list(islice(dict.items(value), MAX_ITEMS + 1))),
    types.MappingProxyType: lambda walk, value: walk.copy(gc.get_referents(value)[0]),
    types.SimpleNamespace: lambda walk, value: walk.mapping(value, list(_own(value).items())),
    BaseModel: _model,
    **dict.fromkeys((UserDict, UserList, UserString), lambda walk, value: walk.copy(_attribute(value, "data"))),
    list: lambda walk, value: walk.array(value, list.__iter__(value)),
    tuple: lambda walk, value: walk.array(value, tuple.__iter__(value)),
    range: lambda walk, value: walk.array(value, value),
    set: _some(set.__iter__),
    frozenset: _some(frozenset.__iter__),
    deque: _some(deque.__iter__),
    **dict.fromkeys(map(type, ({}.keys(), {}.values(), {}.items())), _some(iter)),
    BaseException: _error,
    **dict.fromkeys((type, types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.ModuleType), _named),
    object: _object,
}
