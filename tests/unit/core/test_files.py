"""Atomic writes, the one JSON form, digests."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segwright.core.errors import DamagedFileError, StorageError
from segwright.core.files import (
    TEMPORARY_PREFIX,
    atomic_path,
    bytes_digest,
    file_digest,
    intended_name,
    json_digest,
    json_text,
    read_json,
    remove_leftovers,
    remove_temporary_files,
    write_bytes,
    write_json,
    write_text,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def test_a_file_appears_whole_and_alone(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b" / "image.nii.gz"
    with atomic_path(target) as temporary:
        assert temporary.parent == target.parent and temporary.name.endswith("-image.nii.gz")
        temporary.write_bytes(b"half")
        assert not target.exists()
        temporary.write_bytes(b"whole")
    assert target.read_bytes() == b"whole"
    assert list(target.parent.iterdir()) == [target]


def test_a_failed_writer_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "x.json"
    write_text(target, "old")
    with pytest.raises(RuntimeError, match="midway"), atomic_path(target) as temporary:
        temporary.write_text("new")
        raise RuntimeError("midway")
    assert target.read_text() == "old" and list(tmp_path.iterdir()) == [target]


def test_a_writer_that_wrote_nothing_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "x"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_two_writers_do_not_share_a_temporary_file(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "x") as first, atomic_path(tmp_path / "x") as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert (tmp_path / "x").read_text() == "first"  # whose rename comes last


@pytest.mark.parametrize(("number", "raises"), [(errno.EINVAL, False), (errno.ENOTSUP, False), (errno.EIO, True)])
def test_a_file_system_that_flushes_no_folders_will_do_but_no_failing_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, raises: bool
) -> None:
    flush = os.fsync

    def flush_files_only(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", flush_files_only)
    with pytest.raises(StorageError, match="the disk reports an error") if raises else contextlib.nullcontext():
        write_text(tmp_path / "x", "new")
    assert (tmp_path / "x").read_text() == "new" and list(tmp_path.iterdir()) == [tmp_path / "x"]


def test_leftovers_of_killed_writers_are_removed(tmp_path: Path) -> None:
    for name in (f"{TEMPORARY_PREFIX}123-x.json", "kept.json", f"sub/{TEMPORARY_PREFIX}1-y"):
        write_bytes(tmp_path / name, b"")
    remove_temporary_files(tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == [
        f"{TEMPORARY_PREFIX}1-y",
        "kept.json",
    ]
    remove_temporary_files(tmp_path / "nowhere")


def test_leftovers_of_some_files_are_removed_and_what_others_write_stays(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), atomic_path(tmp_path / "mine-too.json") as temporary:
        temporary.write_bytes(b"half")
        killed = temporary.with_name(temporary.name.replace("mine-too", "mine"))
        killed.write_bytes(b"half")
        raise KeyboardInterrupt
    other = tmp_path / f"{TEMPORARY_PREFIX}0123456789ab-not-mine.json"
    for path in (other, tmp_path / "mine.json"):
        path.write_bytes(b"")
    assert intended_name(killed) == "mine.json" == intended_name(tmp_path / "mine.json")
    remove_leftovers([tmp_path / "mine.json", tmp_path / "nowhere" / "mine.json"])
    assert sorted(tmp_path.iterdir()) == sorted([other, tmp_path / "mine.json"])


@given(JSON)
def test_json_survives_a_round_trip(value: Any) -> None:
    assert json.loads(json_text(value)) == value


@given(st.dictionaries(st.text(), JSON, max_size=5))
def test_equal_values_give_equal_text_and_digests_in_any_order(value: dict[str, Any]) -> None:
    turned = dict(reversed(value.items()))
    assert json_text(turned) == json_text(value) and json_digest(turned) == json_digest(value)


def test_the_json_form() -> None:
    assert (
        json_text({"b": 1, "a": [1.5, None, "ü"]}) == '{\n  "a": [\n    1.5,\n    null,\n    "ü"\n  ],\n  "b": 1\n}\n'
    )
    assert json_text({"b": 1, "a": 2}, sort_keys=False).index("b") < 6


def test_what_json_does_not_know_becomes_plain() -> None:
    value = {"a": np.float32(0.5), "b": np.arange(2), "c": {3, 1}, "d": Path("x") / "y", "e": np.int64(7)}
    assert json.loads(json_text(value)) == {"a": 0.5, "b": [0, 1], "c": [1, 3], "d": "x/y", "e": 7}
    assert json_digest({"a": np.int64(1)}) == json_digest({"a": 1})
    with pytest.raises(TypeError, match="object cannot be written as JSON"):
        json_text(object())


def test_a_json_file_keeps_its_schema_order(tmp_path: Path) -> None:
    write_json(tmp_path / "plans.json", {"b": 1, "a": float("nan")}, sort_keys=False)
    assert list(read_json(tmp_path / "plans.json")) == ["b", "a"]  # NaN, as v2 writes it, is read too


def test_digests_of_known_content(tmp_path: Path) -> None:
    """SHA-256 of "abc": FIPS 180-4."""
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    write_bytes(tmp_path / "x", b"abc")
    assert bytes_digest(b"abc") == expected == file_digest(tmp_path / "x")
    large = os.urandom(3 << 20)  # more than one chunk
    write_bytes(tmp_path / "large", large)
    assert file_digest(tmp_path / "large") == bytes_digest(large)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "the file does not exist; make it, or correct the path"),
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"\xff", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
    ],
)
def test_unreadable_json_is_named(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "x.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DamagedFileError) as caught:
        read_json(path)
    assert str(caught.value).startswith(f"{path}: {message}") and caught.value.path == path


def test_a_folder_is_no_json_file(tmp_path: Path) -> None:
    with pytest.raises(DamagedFileError, match=r"cannot be read \(Is a directory\); correct the path"):
        read_json(tmp_path)
