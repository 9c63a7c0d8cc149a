"""Read a pickle as data: a stack machine of its own, which imports nothing, and calls and builds nothing of others.

A pickle is a program, and Python's reader runs it. Here a global is only its name. Names outside a closed vocabulary
are refused; the few that files of nnU-Net v2 need (ordered dictionaries, numpy numbers and arrays, tensors) stand for
functions of this package. Work and memory stay proportional to the size of the file.
"""

from __future__ import annotations

import pickletools
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from segwright.core.errors import ModelError
from segwright.sharing.nnunet_v2.pickle_values import (
    PLAIN_CALLS,
    NumberType,
    PendingArray,
    expect,
    plain_key,
    short,
)

LIMIT_BYTES = 32 << 20
"""Largest pickle that is read: checkpoints keep their arrays outside of it, and what remains is a megabyte at most.
An operation of one byte can take a hundred bytes of memory."""

_COPIES_PER_BYTE = 8
"""What calls may copy, as a multiple of the pickle's size."""
_ARRAY_MARKER = "numpy.ndarray"


@dataclass(frozen=True)
class Name:
    """A global of the pickle, e.g. ``torch.FloatStorage``; never the object it stands for."""

    text: str


@dataclass(frozen=True)
class Vocabulary:
    """Everything a pickle may name.

    Attributes:
        calls: name -> function of this package that makes the value when the pickle calls the name.
        names: names that may appear as values but cannot be called.
        persistent: turns a persistent id (arrays stored outside the pickle) into a value; None: there are none.
    """

    calls: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    names: frozenset[str] = frozenset()
    persistent: Callable[[Any], Any] | None = None

    def with_plain_values(self) -> Vocabulary:
        """The same and what every file may hold: containers, bytes, numpy numbers and arrays of numbers."""
        return Vocabulary({**PLAIN_CALLS, **self.calls}, self.names | {_ARRAY_MARKER}, self.persistent)


def read_pickle(content: bytes, vocabulary: Vocabulary, where: str) -> Any:
    """The value a pickle describes.

    Args:
        where: names the file in messages.

    Raises:
        ModelError: the pickle names something outside the vocabulary, or is damaged.
    """
    if len(content) > LIMIT_BYTES:
        raise ModelError(f"{where}: its pickle has {len(content)} bytes, more than {LIMIT_BYTES}; do not use this file")
    machine = _Machine(vocabulary.with_plain_values(), where, len(content))
    try:
        for operation, argument, _ in pickletools.genops(content):
            if operation.name == "STOP":
                return machine.pop()
            machine.step(operation.name, argument)
    except ModelError:
        raise
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError) as problem:
        raise ModelError(f"{where}: not a readable pickle ({short(problem)}); get the file again") from problem
    raise ModelError(f"{where}: the pickle is cut off; get the file again")


_Mark = object()
_VALUES = frozenset(
    {"INT", "LONG", "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "FLOAT", "BINFLOAT"}
    | {"STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
    | {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"}
)
"""Operations that put their own argument on the stack."""
_CONSTANTS: Mapping[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
    "MARK": lambda: _Mark,
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class _Machine:
    """The stack and the memo of one file. Each operation does what the pickle protocol says, or is refused."""

    def __init__(self, vocabulary: Vocabulary, where: str, size_bytes: int) -> None:
        self.vocabulary, self.where = vocabulary, where
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.copies_left = _COPIES_PER_BYTE * size_bytes + 4096

    def step(self, name: str, argument: Any) -> None:
        if name in _VALUES:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name]())
        elif name in _TUPLES:
            self.stack.append(tuple(reversed([self.pop() for _ in range(_TUPLES[name])])))
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.remember(argument)
        elif name == "MEMOIZE":
            self.remember(len(self.memo))
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[argument])
        elif name not in ("PROTO", "FRAME"):
            handler = _HANDLERS.get(name)
            if handler is None:
                raise self.refused(f"its pickle uses the operation {name} ({short(argument)})")
            handler(self, argument)

    def remember(self, slot: int) -> None:
        value = self.top()
        self.memo[slot] = value
        if isinstance(value, PendingArray):
            value.slots.append(slot)

    def pop(self) -> Any:
        value = self.stack.pop()
        if value is _Mark:
            raise ValueError("unexpected mark")
        return value

    def top(self) -> Any:
        if self.stack[-1] is _Mark:
            raise ValueError("unexpected mark")
        return self.stack[-1]

    def pop_to_mark(self) -> list[Any]:
        values = []
        while (value := self.stack.pop()) is not _Mark:
            values.append(value)
        return values[::-1]

    def drop(self, _: Any) -> None:
        self.stack.pop()

    def repeat(self, _: Any) -> None:
        self.stack.append(self.top())

    def drop_to_mark(self, _: Any) -> None:
        self.pop_to_mark()

    def make_list(self, _: Any) -> None:
        self.stack.append(self.pop_to_mark())

    def make_tuple(self, _: Any) -> None:
        self.stack.append(tuple(self.pop_to_mark()))

    def make_frozenset(self, _: Any) -> None:
        self.stack.append(frozenset(map(plain_key, self.pop_to_mark())))

    def make_dict(self, _: Any) -> None:
        values = self.pop_to_mark()
        self.stack.append({plain_key(key): value for key, value in zip(values[::2], values[1::2], strict=True)})

    def append(self, _: Any) -> None:
        value = self.pop()
        expect(self.top(), list).append(value)

    def extend(self, _: Any) -> None:
        values = self.pop_to_mark()
        expect(self.top(), list).extend(values)

    def add_items(self, _: Any) -> None:
        values = self.pop_to_mark()
        expect(self.top(), set).update(map(plain_key, values))

    def set_item(self, _: Any) -> None:
        value, key = self.pop(), self.pop()
        expect(self.top(), dict)[plain_key(key)] = value

    def set_items(self, _: Any) -> None:
        values = self.pop_to_mark()
        expect(self.top(), dict).update(
            (plain_key(key), value) for key, value in zip(values[::2], values[1::2], strict=True)
        )

    def global_of_argument(self, argument: Any) -> None:
        module, _, name = str(argument).partition(" ")
        self.push_global(module, name)

    def global_of_stack(self, _: Any) -> None:
        name, module = self.pop(), self.pop()
        self.push_global(expect(module, str), expect(name, str))

    def push_global(self, module: str, name: str) -> None:
        text = f"{module}.{name}"
        if text not in self.vocabulary.calls and text not in self.vocabulary.names:
            raise self.refused(f"its pickle names {short(text)}, which could run code and has no place in it")
        self.stack.append(Name(text))

    def call(self, _: Any) -> None:
        arguments, function = expect(self.pop(), tuple), expect(self.pop(), Name)
        if function.text not in self.vocabulary.calls:
            raise self.refused(f"its pickle calls {short(function.text)}, which is a name only")
        self.charge(arguments)
        self.stack.append(self.vocabulary.calls[function.text](*arguments))

    def charge(self, values: Any) -> None:
        """Count what may be copied: one value can be the argument of many calls, and one tuple all their arguments."""
        self.copies_left -= len(values) + sum(len(value) for value in values if hasattr(value, "__len__"))
        if self.copies_left < 0:
            raise self.refused("its pickle copies the same values again and again")

    def build(self, _: Any) -> None:
        """Give the top object its state: ours take it, an ordered dictionary's attributes are left out."""
        state, target = self.pop(), self.top()
        if isinstance(target, NumberType):
            target.set_state(state)
        elif isinstance(target, PendingArray):
            self.charge(expect(state, tuple))
            self.stack[-1] = target.with_state(state)
            self.memo.update(dict.fromkeys(target.slots, self.stack[-1]))
            target.slots.clear()
        elif not isinstance(target, OrderedDict):
            raise self.refused(f"its pickle gives a state to a {type(target).__name__}")

    def persistent(self, _: Any) -> None:
        if self.vocabulary.persistent is None:
            raise self.refused("its pickle refers to data outside of it")
        self.stack.append(self.vocabulary.persistent(self.pop()))

    def class_of_argument(self, argument: Any) -> None:
        """INST, the oldest way to make an object: refused, but named like any other global."""
        self.global_of_argument(argument)
        raise self.refused("its pickle makes an object by INST")

    def refused(self, problem: str) -> ModelError:
        return ModelError(f"{self.where}: refused to read this file: {problem}; get it from a source you trust")


_HANDLERS: Mapping[str, Callable[[_Machine, Any], None]] = {
    "POP": _Machine.drop,
    "DUP": _Machine.repeat,
    "POP_MARK": _Machine.drop_to_mark,
    "LIST": _Machine.make_list,
    "TUPLE": _Machine.make_tuple,
    "FROZENSET": _Machine.make_frozenset,
    "DICT": _Machine.make_dict,
    "APPEND": _Machine.append,
    "APPENDS": _Machine.extend,
    "ADDITEMS": _Machine.add_items,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "GLOBAL": _Machine.global_of_argument,
    "STACK_GLOBAL": _Machine.global_of_stack,
    "INST": _Machine.class_of_argument,
    "REDUCE": _Machine.call,
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.persistent,
}
