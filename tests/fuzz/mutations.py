"""Random changes of bytes and of JSON values, reproducible from one ``random.Random``."""

from __future__ import annotations

import copy
import json
import random
import struct
from collections.abc import Callable, Sequence
from typing import Any

Change = Callable[[random.Random, bytearray], None]

WHOLE_NUMBERS = (
    0, 1, 2, 3, 4, 7, 8, 15, 16, 31, 32, 63, 64, 100, 127, 128, 255, 256, 512, 999, 1023, 1024, 4095, 4096, 32767,
    32768,
    65535, 65536, 10**6, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**40, 2**53, 2**63 - 1, 2**63, 2**64 - 1,
)  # fmt: skip
FLOATS = (
    0.0, -0.0, 1.0, -1.0, 0.5, 1e-3, 1e-10, 1e-38, 1e-45, 5e-324, 1e6, 1e10, 1e20, 3e38, 1e300, 1.7e308,
    float("nan"), float("inf"), float("-inf"),
)  # fmt: skip
TEXTS = (
    "", " ", "0", "-1", "1e400", "nan", "None", "null", "true", "..", "../../x", "/etc/passwd", "C:\\x", "a/b", "-rf",
    "$HOME", "%s%n", "{0}", "a\nb", "a\x00b", "\x1b[31m", "\ud800", "\ufeff", "\u00e9", "e\u0301", "\u5f71\u50cf",
    "x" * 300, "x" * 20_000, "ZScoreNormalization", "CTNormalization", "background", "ignore", "3d_fullres", "2d",
    ".nii.gz",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, *WHOLE_NUMBERS, -1, -2, -(2**31), -(2**63), 10**30, 10**400, *FLOATS, *TEXTS,
    [], {}, [[]], [None], [0], [-1], [1, 2], [1, 1, 1], [0, 0, 0], ["a"], {"a": 1}, {"0": {}}, [{}], [1.5] * 3,
    [10**9] * 3,
    [[1, 2], [3]], list(range(200)),
)  # fmt: skip
_HEADER_BYTES = 400


def mutated(rng: random.Random, content: bytes, others: Sequence[bytes] = ()) -> bytes:
    """One to four random changes; ``others`` are files whose parts may be mixed in."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 4))):
        if others and rng.random() < 0.05:
            _splice(rng, data, rng.choice(others))
        else:
            rng.choice(_CHANGES)(rng, data)
    return bytes(data)


def number_bytes(rng: random.Random, code: str) -> bytes:
    """An interesting value of a :mod:`struct` code such as ``<i``."""
    while True:
        kind = code[-1]
        value: Any = rng.choice(FLOATS) if kind in "fde" else rng.choice(WHOLE_NUMBERS) * rng.choice((1, 1, 1, -1))
        try:
            return struct.pack(code, value)
        except (struct.error, OverflowError):
            continue


def mutated_json(rng: random.Random, value: Any) -> bytes:
    """A JSON document with a few nodes changed, sometimes also damaged as text."""
    value = json.loads(json.dumps(value))
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3))):
        value = _changed_tree(rng, value)
    text = json.dumps(value, allow_nan=True, ensure_ascii=rng.random() < 0.7)
    kind = rng.random()
    if kind < 0.70:
        return text.encode("utf-8", errors="surrogatepass" if rng.random() < 0.1 else "replace")
    if kind < 0.80:
        return mutated(rng, text.encode("utf-8", errors="replace"))
    return _odd_text(rng, text)


def _odd_text(rng: random.Random, text: str) -> bytes:
    """Things :func:`json.dumps` does not write."""
    choice = rng.randrange(8)
    if choice == 0:
        depth = rng.choice((100, 1000, 20_000, 100_000))
        return b"[" * depth + b"]" * depth
    if choice == 1:
        depth = rng.choice((100, 1000, 20_000))
        return b'{"a":' * depth + b"1" + b"}" * depth
    if choice == 2 and len(text) > 2 and text.startswith("{"):  # every key twice, with other values
        other = mutated_json(rng, json.loads(text)) if rng.random() < 0.5 else b"{}"
        return text[:-1].encode("utf-8", "replace") + b"," + other[1:] if other[:1] == b"{" else other
    if choice == 3:
        return text.encode("utf-16" if rng.random() < 0.5 else "utf-8-sig", errors="replace")
    if choice == 4:
        digits = b"9" * rng.choice((20, 400, 5000))
        return text.encode("utf-8", "replace").replace(b"1", digits, 1)
    if choice == 5:
        return text.replace(":", rng.choice((" : ", ":\n", "=", "::")), 3).encode("utf-8", "replace")
    if choice == 6:
        return text[: rng.randrange(len(text) + 1)].encode("utf-8", "replace")
    return text.replace('"', "'").encode("utf-8", "replace")


def _changed_tree(rng: random.Random, root: Any) -> Any:
    """The same tree with one random node changed, removed, doubled or moved."""
    holder = [root]
    places = list(_places(holder))
    parent, key = rng.choice(places)
    value = parent[key]
    choice = rng.randrange(10)
    if choice < 4:
        parent[key] = copy.deepcopy(rng.choice(VALUES))  # changed in place by later changes
    elif choice == 4:
        parent[key] = _other_type(rng, value)
    elif choice == 5 and parent is not holder:
        del parent[key]
    elif choice == 6 and isinstance(parent, dict):
        parent[rng.choice((f"{key}x", "", str(key).upper(), rng.choice(TEXTS), "segwright"))] = value
        if rng.random() < 0.5:
            del parent[key]
    elif choice == 7:
        other_parent, other_key = rng.choice(places)
        parent[key] = json.loads(json.dumps(other_parent[other_key]))
    elif choice == 8 and isinstance(value, list):
        parent[key] = value * rng.choice((0, 2, 50)) if rng.random() < 0.6 else value[: len(value) // 2]
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        factor = rng.choice((-1, 0, 1000, 10**12) if abs(value) > 1e300 else (-1, 0, 1e-9, 1000, 10**12, 0.5))
        parent[key] = value * factor + rng.choice((0, 1, -1))
    else:
        nested: Any = value
        for _ in range(rng.choice((1, 2, 60))):
            nested = [nested] if rng.random() < 0.5 else {"a": nested}
        parent[key] = nested
    return holder[0]


def _places(node: Any) -> Any:
    """Every (container, key) of a tree."""
    entries = node.items() if isinstance(node, dict) else enumerate(node)
    for key, child in list(entries):
        yield node, key
        if isinstance(child, (dict, list)):
            yield from _places(child)


def _other_type(rng: random.Random, value: Any) -> Any:
    if isinstance(value, dict):
        return rng.choice((list(value.items()), list(value), list(value.values()), str(value)))
    if isinstance(value, list):
        return rng.choice(({str(i): v for i, v in enumerate(value)}, str(value), value[0] if value else None, [value]))
    if isinstance(value, bool) or value is None:
        return rng.choice((str(value), 0, 1))
    return rng.choice((str(value), [value], {str(value)[:50]: value}, True))


def _flip_bit(rng: random.Random, data: bytearray) -> None:
    if data:
        data[_position(rng, data)] ^= 1 << rng.randrange(8)


def _set_byte(rng: random.Random, data: bytearray) -> None:
    if data:
        data[_position(rng, data)] = rng.choice((0, 1, 0x20, 0x7F, 0x80, 0xFF, rng.randrange(256)))


def _set_number(rng: random.Random, data: bytearray) -> None:
    packed = number_bytes(rng, rng.choice("<>") + rng.choice("hHiIqQfd"))
    if len(data) >= len(packed):
        start = min(_position(rng, data) & ~1, len(data) - len(packed))
        data[start : start + len(packed)] = packed


def _truncate(rng: random.Random, data: bytearray) -> None:
    del data[rng.randrange(len(data) + 1) if rng.random() < 0.7 else max(0, len(data) - rng.randrange(1, 40)) :]


def _insert(rng: random.Random, data: bytearray) -> None:
    start = rng.randrange(len(data) + 1)
    data[start:start] = rng.randbytes(rng.choice((1, 2, 4, 100)))


def _delete(rng: random.Random, data: bytearray) -> None:
    start = rng.randrange(len(data) + 1)
    del data[start : start + rng.choice((1, 2, 4, 100))]


def _repeat(rng: random.Random, data: bytearray) -> None:
    start, length = rng.randrange(len(data) + 1), rng.choice((4, 32, 300))
    data[start:start] = data[start : start + length]


def _blank(rng: random.Random, data: bytearray) -> None:
    start, length = rng.randrange(len(data) + 1), rng.choice((4, 16, 200))
    stop = min(len(data), start + length)
    data[start:stop] = rng.choice((b"\0", b"\xff", b" ")) * (stop - start)


def _swap(rng: random.Random, data: bytearray) -> None:
    length = rng.choice((2, 8, 64))
    if len(data) > 2 * length:
        a, b = rng.randrange(len(data) - length), rng.randrange(len(data) - length)
        data[a : a + length], data[b : b + length] = data[b : b + length], data[a : a + length]


def _append(rng: random.Random, data: bytearray) -> None:
    data += rng.randbytes(rng.choice((1, 10, 5000)))


def _splice(rng: random.Random, data: bytearray, other: bytes) -> None:
    start, length = rng.randrange(len(other) + 1), rng.choice((8, 64, 1000))
    at = rng.randrange(len(data) + 1)
    data[at : at + length] = other[start : start + length]


_CHANGES: tuple[Change, ...] = (
    _flip_bit, _flip_bit, _set_byte, _set_byte, _set_number, _set_number, _set_number, _truncate, _insert, _delete,
    _repeat, _blank, _swap, _append,
)  # fmt: skip


def _position(rng: random.Random, data: bytearray) -> int:
    """A position; headers, which stand in front, are hit more often."""
    return rng.randrange(min(len(data), _HEADER_BYTES) if rng.random() < 0.7 else len(data))
