"""Values a pickle may hold, made by hand: containers, bytes, numpy numbers and arrays of numbers."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

_NUMBER_KINDS = "biuf"
_KEY_PARTS, _KEY_LENGTH, _KEY_BITS = 16, 1000, 60
"""Most parts of a key that is a tuple, characters of a text and bits of a whole number in it."""


def expect(value: Any, kind: Any) -> Any:
    """The value, which must be of this type (or one of these)."""
    if not isinstance(value, kind):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        raise TypeError(f"{' or '.join(entry.__name__ for entry in kinds)} expected, not {type(value).__name__}")
    return value


def plain_key(value: Any) -> Any:
    """Keys and members of sets are plain and short.

    Hashing a deep nest could exhaust the interpreter's stack; a long key that stands in the file once could be hashed
    and compared as often as the file has room for a reference to it.
    """
    parts = value if isinstance(value, tuple) else (value,)
    if len(parts) > _KEY_PARTS:
        raise ValueError(f"a tuple of {len(parts)} parts as a key")
    for part in parts:
        if not (part is None or isinstance(part, (str, bytes, int, float, np.generic))):
            raise TypeError(f"a {type(part).__name__} as a key")
        is_long = isinstance(part, (str, bytes)) and len(part) > _KEY_LENGTH
        if is_long or (isinstance(part, int) and part.bit_length() > _KEY_BITS):
            raise ValueError(f"a {type(part).__name__} as a key that is too long")
    return value


def short(value: Any) -> str:
    """Text for a message, of bounded length whatever a file says."""
    text = str(value) if isinstance(value, (str, int, Exception)) else type(value).__name__
    return text if len(text) <= 120 else f"{text[:117]}..."


@dataclass
class NumberType:
    """numpy.dtype of a number; its state says the byte order."""

    code: str

    def set_state(self, state: Any) -> None:
        order = expect(state, tuple)[1]
        if order not in ("<", ">", "|", "=") or any(part is not None for part in state[2:5]):
            raise ValueError("a structured or unknown numpy type")
        self.code = order + self.code.lstrip("<>|=")

    def numpy(self) -> np.dtype[Any]:
        return np.dtype(self.code)


@dataclass
class PendingArray:
    """numpy.ndarray before it got its state; ``slots`` are the places of the memo that know it."""

    slots: list[int] = field(default_factory=list)

    def with_state(self, state: Any) -> np.ndarray:
        _, shape, kind, fortran, raw = expect(state, tuple)
        return _array(raw, kind, shape, "F" if fortran else "C")


def _number_type(code: Any, *_: Any) -> NumberType:
    text = expect(code, str)
    if len(text) > 4 or np.dtype(text).kind not in _NUMBER_KINDS:
        raise ValueError(f"numpy type {short(text)} is not a number")
    return NumberType(text)


def _array(raw: Any, kind: Any, shape: Any, order: Any = "C") -> np.ndarray:
    values = np.frombuffer(_raw(raw), expect(kind, NumberType).numpy())
    sizes = tuple(int(expect(size, int)) for size in expect(shape, tuple))
    if min(sizes, default=0) < 0 or order not in ("C", "F"):
        raise ValueError("an array of an impossible shape")
    return values.reshape(sizes, order=order)


def _scalar(kind: Any, raw: Any) -> Any:
    return _array(raw, kind, (), "C")[()]


def _raw(value: Any) -> bytes:
    """Bytes, which pickles of Python 2 hold as a string of Latin-1 characters."""
    if isinstance(value, str):
        return value.encode("latin-1")
    return bytes(value) if isinstance(value, bytearray) else expect(value, bytes)


def _encoded(text: Any, encoding: Any = "latin1") -> bytes:
    """``_codecs.encode``: how protocol 2 writes bytes."""
    if encoding not in ("latin1", "latin-1"):
        raise ValueError(f"encoding {short(encoding)}")
    return str(expect(text, str)).encode("latin-1")


def _plain_container(kind: Callable[..., Any]) -> Callable[..., Any]:
    def make(values: Any = ()) -> Any:
        return kind(map(plain_key, expect(values, (list, tuple))))

    return make


def _ordered(values: Any = ()) -> OrderedDict[Any, Any]:
    pairs = [expect(pair, (list, tuple)) for pair in expect(values, (list, tuple))]
    return OrderedDict((plain_key(key), value) for key, value in pairs)


_MULTIARRAY = ("numpy.core.multiarray", "numpy._core.multiarray")
_NUMERIC = ("numpy.core.numeric", "numpy._core.numeric")
_BUILTINS = ("builtins", "__builtin__")

PLAIN_CALLS: Mapping[str, Callable[..., Any]] = {
    "collections.OrderedDict": _ordered,
    "_codecs.encode": _encoded,
    "numpy.dtype": _number_type,
    **{f"{module}.set": _plain_container(set) for module in _BUILTINS},
    **{f"{module}.frozenset": _plain_container(frozenset) for module in _BUILTINS},
    **{f"{module}.bytes": lambda: b"" for module in _BUILTINS},
    **{f"{module}.scalar": _scalar for module in _MULTIARRAY},
    **{f"{module}._reconstruct": lambda *_: PendingArray() for module in _MULTIARRAY},
    **{f"{module}._frombuffer": _array for module in _NUMERIC},
}
"""Old and new names: numpy 2 moved ``numpy.core`` to ``numpy._core``, and protocol 2 knows Python 2's modules."""
