"""Pickles as data: what files of nnU-Net v2 hold is read, everything that could run code is refused by name."""

from __future__ import annotations

import os
import pickle
import pickletools
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segwright.core.errors import ModelError
from segwright.sharing.nnunet_v2 import restricted_pickle
from segwright.sharing.nnunet_v2.restricted_pickle import Name, Vocabulary, read_pickle

PROTOCOLS = (0, 1, 2, 3, 4, 5)


def read(content: bytes, vocabulary: Vocabulary | None = None) -> Any:
    return read_pickle(content, vocabulary or Vocabulary(), "file.pkl")


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "value",
    [
        None, True, -7, 10**30, 2.5, float("inf"), "text é", b"bytes\x00\xff", (), (1, 2, 3, 4), [1, [2, []]],
        {"a": {"b": (1, None)}, 3: []}, {1, 2}, frozenset({"x"}), OrderedDict([("z", 1), ("a", 2)]), b"",
    ],
    ids=repr,
)  # fmt: skip
def test_plain_values_come_back_from_every_protocol(value: Any, protocol: int) -> None:
    found = read(pickle.dumps(value, protocol))
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_numbers_and_arrays_of_numpy(protocol: int) -> None:
    matrix = np.arange(12, dtype=np.float32).reshape(3, 4)
    numbers = [np.float64(0.25), np.float32(1.5), np.int64(-3), np.bool_(True)]
    arrays = [matrix, np.asfortranarray(matrix), np.array([1, 2], ">i2"), np.zeros((0, 2))]
    found = read(pickle.dumps({"numbers": numbers, "arrays": [*arrays, matrix]}, protocol))
    assert found["numbers"] == numbers and [type(value) for value in found["numbers"]] == list(map(type, numbers))
    for one, other in zip(found["arrays"], [*arrays, matrix], strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


def test_names_of_numpy_1_and_2_mean_the_same() -> None:
    content = pickle.dumps(np.float64(0.5), 2)
    new = content.replace(b"numpy.core.multiarray", b"numpy._core.multiarray")
    old = content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert new != old and read(new) == read(old) == 0.5


class Payload:
    """Pickled as a call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("function", "arguments", "name"),
    [
        (os.system, ("touch {marker}",), f"{os.name}.system"),
        (eval, ("open('{marker}', 'w')",), "builtins.eval"),
        (exec, ("open('{marker}', 'w')",), "builtins.exec"),
        (getattr, (OrderedDict, "fromkeys"), "builtins.getattr"),
        (open, ("{marker}", "w"), "io.open"),
        (np.load, ("{marker}",), "numpy.load"),
        (pickle.loads, (b"",), "pickle.loads"),
        (__import__, ("os",), "builtins.__import__"),
    ],
)
def test_functions_are_refused_by_name_and_never_run(
    function: Callable[..., Any], arguments: tuple[Any, ...], name: str, protocol: int, tmp_path: Path
) -> None:
    marker = tmp_path / "marker"
    filled = [value.format(marker=marker) if isinstance(value, str) else value for value in arguments]
    content = pickle.dumps({"weights": [Payload(function, *filled)]}, protocol)
    name = name if protocol >= 3 else name.replace("builtins.", "__builtin__.")
    with pytest.raises(ModelError, match=rf"file\.pkl: refused .* names _?{name.replace('.', '[.]')}, which could run"):
        read(content)
    assert not marker.exists()


def test_a_call_nested_in_an_allowed_call_is_refused_too(tmp_path: Path) -> None:
    inner = Payload(os.system, f"touch {tmp_path / 'marker'}")
    with pytest.raises(ModelError, match="system"):
        read(pickle.dumps(Payload(OrderedDict, [("key", inner)])))
    assert not (tmp_path / "marker").exists()


OPERATIONS = {code.name: code.code.encode("latin-1") for code in pickletools.opcodes}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"(S'echo'\nios\nsystem\n.", "os.system"),  # INST
        (b"cbuiltins\neval\n.", "builtins.eval"),  # named only
        (b"ccollections\nOrderedDict\n)\x81.", "NEWOBJ"),
        (b"(ccollections\nOrderedDict\no.", "OBJ"),
        (b"\x82\x01.", "EXT1"),
        (b"Pnumber 1\n.", "PERSID"),
        (b"K\x01Q.", "outside of it"),
        (b"\x97.", "NEXT_BUFFER"),
        (b"ccollections\nOrderedDict\ncollections\n.", "pickle"),
        (b"K\x01)R.", "pickle"),  # calls a number
        (b"cnumpy\nndarray\n)R.", "a name only"),
        (b"]}b.", "state to a list"),
        (b"}]K\x01s.", "list as a key"),
        (b"cnumpy\ndtype\nX\x02\x00\x00\x00O8\x85R.", "not a number"),
        (b"cnumpy\ndtype\nX\x04\x00\x00\x00i4,i\x85R.", "not a number"),
        (b"c_codecs\nencode\nX\x01\x00\x00\x00aX\x03\x00\x00\x00zip\x86R.", "encoding zip"),
        (b"h\x09.", "pickle"),  # unknown memo
        (b"0.", "pickle"),
        (b"(.", "unexpected mark"),
        (b"K\x01", "not a readable pickle"),
        (b"", "not a readable pickle"),
        (b"garbage", "not a readable pickle"),
        (b"\x8e" + (1 << 62).to_bytes(8, "little") + b"abc.", "not a readable pickle"),  # BINBYTES8 of 4 EiB
        (b"\x8b" + b"\xff\xff\xff\x7f" + b"\x01.", "not a readable pickle"),  # LONG4 of 2 GiB
    ],
)  # fmt: skip
def test_strange_operations_are_refused(content: bytes, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        read(content)


def test_huge_memo_numbers_need_no_memory() -> None:
    assert read(b"K\x01r\xff\xff\xff\xffj\xff\xff\xff\xff.") == 1


def test_deep_nests_do_not_exhaust_the_stack() -> None:
    depth = 100_000
    tuples = b")" + b"\x85" * depth
    assert isinstance(read(tuples + b"."), tuple)
    with pytest.raises(ModelError, match="tuple as a key"):  # hashing it would end the process
        read(b"}" + tuples + b"K\x01s.")


def test_copies_are_counted() -> None:
    text = b"X" + (10_000).to_bytes(4, "little") + b"a" * 10_000
    again = b"c_codecs\nencode\nh\x00X\x06\x00\x00\x00latin1\x86R0"
    assert read(text + b"q\x00" + again * 2 + b".") == "a" * 10_000
    with pytest.raises(ModelError, match="again and again"):
        read(text + b"q\x00" + again * 1000 + b".")


def test_the_size_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restricted_pickle, "LIMIT_BYTES", 10)
    with pytest.raises(ModelError, match="more than 10"):
        read(pickle.dumps("a long text"))


def test_a_vocabulary_gives_names_calls_and_outside_values() -> None:
    vocabulary = Vocabulary(
        calls={"made.up.Add": lambda a, b: a + b},
        names=frozenset({"made.up.Kind"}),
        persistent=lambda key: ("from", key),
    )
    content = b"(cmade.up\nAdd\nK\x02K\x03\x86Rcmade.up\nKind\nX\x01\x00\x00\x007Ql."
    assert read(content, vocabulary) == [5, Name("made.up.Kind"), ("from", "7")]
    with pytest.raises(ModelError, match="not a readable pickle"):
        read(b"cmade.up\nAdd\n)R.", vocabulary)  # too few arguments


def test_unknown_operations_stay_refused() -> None:
    """Every operation of the protocol is either known here or refused; a new Python may add some."""
    known = restricted_pickle._VALUES | set(restricted_pickle._CONSTANTS) | set(restricted_pickle._HANDLERS)
    known |= set(restricted_pickle._TUPLES) | {
        "PUT",
        "BINPUT",
        "LONG_BINPUT",
        "MEMOIZE",
        "GET",
        "BINGET",
        "LONG_BINGET",
    }
    refused = set(OPERATIONS) - known - {"PROTO", "FRAME", "STOP"}
    assert refused == {
        "PERSID", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4", "NEXT_BUFFER", "READONLY_BUFFER",
    }  # fmt: skip


LONG_KEYS = {
    "tuple": b"(" + b"K\x01" * 20 + b"t",
    "text": b"X" + (2000).to_bytes(4, "little") + b"a" * 2000,
    "bytes": b"B" + (2000).to_bytes(4, "little") + b"a" * 2000,
    "number": b"\x8a\x10" + b"\x7f" * 16,
}


@pytest.mark.parametrize(
    "use",
    [
        b"}h\x00Ns.", b"}(h\x00Nu.", b"(h\x00Nd.", b"\x8f(h\x00\x90.", b"(h\x00\x91.",
        b"ccollections\nOrderedDict\n]h\x00N\x86a\x85R.", b"cbuiltins\nset\n]h\x00a\x85R.",
        b"cbuiltins\nfrozenset\n]h\x00a\x85R.",
    ],
    ids=["SETITEM", "SETITEMS", "DICT", "ADDITEMS", "FROZENSET", "OrderedDict", "set", "frozenset"],
)  # fmt: skip
@pytest.mark.parametrize("key", LONG_KEYS.values(), ids=LONG_KEYS)
def test_long_keys_are_refused(key: bytes, use: bytes) -> None:
    """One of 100 000 parts that is used 100 000 times would be hashed for an hour, from a file of 1 MB."""
    read(b"K\x01q\x000" + use)
    with pytest.raises(ModelError, match="as a key"):
        read(key + b"q\x000" + use)


def test_a_key_of_many_references_is_refused_at_once() -> None:
    parts = uses = 50_000
    started = time.process_time()
    with pytest.raises(ModelError, match="a tuple of 50000 parts as a key"):
        read(b"(" + b"K\x01" * parts + b"tq\x000}(" + b"h\x00N" * uses + b"u.")
    assert time.process_time() - started < 5


def test_many_arguments_are_counted() -> None:
    """The same tuple of 1000 arguments for call after call."""
    arguments = b"(" + b"K\x01" * 1000 + b"tq\x000cnumpy.core.multiarray\n_reconstruct\nq\x010"
    call = b"h\x01h\x00R0"
    assert read(arguments + call * 10 + b"N.") is None
    with pytest.raises(ModelError, match="again and again"):
        read(arguments + call * 1000 + b"N.")
