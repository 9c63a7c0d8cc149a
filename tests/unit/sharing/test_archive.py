from __future__ import annotations

import io
import os
import stat
import struct
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from segwright.core.errors import ModelError
from segwright.sharing.archive import Limits, extract_archive, nothing, safe_name, write_archive

SMALL = Limits(entries=5, total_bytes=4 << 20, file_bytes=3 << 20, ratio=10)


def anything(_: str) -> bool:
    return True


def entry(name: str, mode: int = stat.S_IFREG | 0o644, method: int = zipfile.ZIP_STORED) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = mode << 16
    info.compress_type = method
    return info


def make_zip(path: Path, *entries: tuple[zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as packed:
        for info, content in entries:
            packed.writestr(info, content)
    return path


def assert_refused(
    archive: Path,
    match: str,
    limits: Limits = SMALL,
    expected: Callable[[str], bool] = anything,
    left_out: Callable[[str], bool] = nothing,
) -> None:
    target = archive.parent / "out"
    with pytest.raises(ModelError, match=match) as caught:
        extract_archive(archive, target, expected, limits, left_out)
    assert str(archive) in str(caught.value)
    assert not target.exists()
    assert [path.name for path in archive.parent.iterdir()] == [archive.name], "something was left behind"


def test_round_trip_and_equal_bytes(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    (folder / "a").mkdir(parents=True)
    (folder / "a" / "x.json").write_text("1")
    (folder / "b.bin").write_bytes(os.urandom(3000))
    names = ["b.bin", "a/x.json"]
    write_archive(tmp_path / "1.zip", folder, names)
    os.utime(folder / "b.bin", (0, 1e9))
    write_archive(tmp_path / "2.zip", folder, reversed(names))
    assert (tmp_path / "1.zip").read_bytes() == (tmp_path / "2.zip").read_bytes()
    assert extract_archive(tmp_path / "1.zip", tmp_path / "out", anything) == ("a/x.json", "b.bin")
    assert (tmp_path / "out" / "b.bin").read_bytes() == (folder / "b.bin").read_bytes()
    assert zipfile.ZipFile(tmp_path / "1.zip").testzip() is None


@pytest.mark.parametrize(
    "name",
    [
        "../evil", "/etc/passwd", "a/../../evil", "a//b", "./a", "C:/evil", "a\\..\\evil", "C:evil", "~/x", "a/./b",
        "", "con", "a/NUL.txt", "trailing.", "with space", "tab\t", "ümlaut", "-rf", ".hidden", "a" * 300,
        "/".join("a" * 20),
    ],
)  # fmt: skip
def test_bad_names(name: str) -> None:
    assert not safe_name(name)


@pytest.mark.parametrize("name", ["model.json", "3d_fullres/fold_0/model.safetensors", "a+b/x-1.2"])
def test_good_names(name: str) -> None:
    assert safe_name(name)


@pytest.mark.parametrize("name", ["../evil.json", "/tmp/evil.json", "a/../../evil.json", "x\\..\\y.json"])
def test_paths_that_leave_the_folder(tmp_path: Path, name: str) -> None:
    assert_refused(make_zip(tmp_path / "m.zip", (entry(name), b"x")), "name is absolute, leaves|foreign separator")


def test_links_and_special_files(tmp_path: Path) -> None:
    for mode in (stat.S_IFLNK | 0o777, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFSOCK):
        assert_refused(make_zip(tmp_path / "m.zip", (entry("link", mode), b"/etc/passwd")), "link or a special file")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("first", "second"), [("a", "a"), ("Model.json", "model.json"), ("dir/x", "DIR/x"), ("a/", "a")]
)
def test_names_that_clash(tmp_path: Path, first: str, second: str) -> None:
    one = entry(first, stat.S_IFDIR | 0o755 if first.endswith("/") else stat.S_IFREG | 0o644)
    assert_refused(
        make_zip(tmp_path / "m.zip", (one, b"" if first.endswith("/") else b"1"), (entry(second), b"2")), "clashes"
    )


def test_file_that_is_also_a_folder(tmp_path: Path) -> None:
    assert_refused(make_zip(tmp_path / "m.zip", (entry("a"), b"1"), (entry("A/b"), b"2")), "also a file")


def test_unexpected_files(tmp_path: Path) -> None:
    assert_refused(
        make_zip(tmp_path / "m.zip", (entry("run.py"), b"1")), "no such file belongs", expected=lambda _: False
    )


def test_too_many_entries(tmp_path: Path) -> None:
    assert_refused(make_zip(tmp_path / "m.zip", *((entry(f"f{i}"), b"") for i in range(6))), "6 entries, more than 5")


def test_bombs(tmp_path: Path) -> None:
    zeros = bytes(2 << 20)
    deflated = entry("zeros", method=zipfile.ZIP_DEFLATED)
    assert_refused(make_zip(tmp_path / "m.zip", (deflated, zeros)), "times its size")
    assert_refused(make_zip(tmp_path / "m.zip", (entry("big"), bytes(3 << 20) + b"1")), "more than 3145728")
    three = [(entry(name), zeros) for name in "abc"]
    assert_refused(make_zip(tmp_path / "m.zip", *three), "more than 4194304")


def test_many_small_bombs_count_together(tmp_path: Path) -> None:
    parts = [(entry(name, method=zipfile.ZIP_DEFLATED), bytes(900_000)) for name in "abc"]
    assert_refused(make_zip(tmp_path / "m.zip", *parts), "times its size")


def test_directory_that_lies_about_the_size(tmp_path: Path) -> None:
    """The promised size is made smaller in both headers; the stream holds more."""
    content = bytes(range(256)) * 40
    path = make_zip(tmp_path / "m.zip", (entry("x", method=zipfile.ZIP_DEFLATED), content))
    raw = bytearray(path.read_bytes())
    for at in range(len(raw) - 4):
        if raw[at : at + 4] == struct.pack("<I", len(content)):
            raw[at : at + 4] = struct.pack("<I", 100)
    path.write_bytes(bytes(raw))
    assert_refused(path, "more than its directory|less than its directory|not a valid zip")


def test_encrypted_and_strangely_compressed(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "m.zip", (entry("x", method=zipfile.ZIP_LZMA), b"1" * 100))
    assert_refused(path, "compression method")
    path = make_zip(tmp_path / "m.zip", (entry("x"), b"1"))
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(bytes(raw))
    assert_refused(path, "encrypted")


def test_damaged_content(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "m.zip", (entry("x"), b"content"))
    path.write_bytes(path.read_bytes().replace(b"content", b"c0ntent", 1))
    assert_refused(path, "not a valid zip")
    path.write_bytes(b"PK\x03\x04 no")
    assert_refused(path, "not a valid zip")


def test_names_with_nul(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "m.zip", (entry("aXb"), b"1"))
    path.write_bytes(path.read_bytes().replace(b"aXb", b"a\x00b"))
    assert_refused(path, "NUL")


def test_never_overwrites(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "m.zip", (entry("x"), b"new"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "x").write_text("old")
    with pytest.raises(ModelError, match="never overwritten"):
        extract_archive(archive, tmp_path / "out", anything)
    assert (tmp_path / "out" / "x").read_text() == "old"
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ModelError, match="never overwritten"):
        extract_archive(archive, tmp_path / "dangling", anything)


def test_missing_archive(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        extract_archive(tmp_path / "none.zip", tmp_path / "out", anything)


def test_permissions_of_entries_are_not_taken_over(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "m.zip", (entry("x", stat.S_IFREG | stat.S_ISUID | 0o777), b"1"))
    extract_archive(archive, tmp_path / "out", anything)
    assert not (tmp_path / "out" / "x").stat().st_mode & (stat.S_ISUID | stat.S_IXUSR)


def test_zip_hidden_behind_other_bytes_is_read_by_its_directory(tmp_path: Path) -> None:
    """Self-extracting archives have a prefix; only what the directory lists is extracted."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        packed.writestr(entry("x"), b"1")
    (tmp_path / "m.zip").write_bytes(b"#!/bin/sh\n" + buffer.getvalue())
    assert extract_archive(tmp_path / "m.zip", tmp_path / "out", anything) == ("x",)


def test_text_that_repeats_itself_is_no_bomb(tmp_path: Path) -> None:
    text = b"[1, 512, 512]\n" * 100_000
    path = make_zip(tmp_path / "m.zip", (entry("x", method=zipfile.ZIP_DEFLATED), text))
    assert_refused(path, "times its size")
    assert extract_archive(path, tmp_path / "out", anything, replace(SMALL, small_bytes=2 << 20)) == ("x",)
    assert (tmp_path / "out" / "x").read_bytes() == text


def is_note(name: str) -> bool:
    return name.startswith("notes/")


def test_what_is_left_out_may_have_any_name_and_is_not_written(tmp_path: Path) -> None:
    names = ["notes/größe (1), x.sh", "notes/.hidden", "notes/A", "notes/a", "notes/con", "notes/" + "a" * 500]
    entries = [(entry(name), b"1") for name in (*names, "x")]
    bomb = (entry("notes/zeros", method=zipfile.ZIP_DEFLATED), bytes(2 << 20))
    path = make_zip(tmp_path / "m.zip", *entries, bomb, (entry("notes/my folder/"), b""))
    limits = replace(SMALL, entries=10)
    assert extract_archive(path, tmp_path / "out", lambda name: name == "x", limits, is_note) == ("x",)
    assert [file.name for file in (tmp_path / "out").rglob("*")] == ["x"]


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([("notes/../../x", b"")], "leaves the folder"),
        ([("notes//x", b"")], "leaves the folder"),
        ([("notes/a\x1b[2J", b"")], "control characters"),
        ([("notes/a\x85", b"")], "control characters"),
        ([("notes/a\\b", b"")], "control characters"),
        ([("notes/C:x", b"")], "control characters"),
        ([("notes/a", b""), ("notes/a", b"")], "clashes with 'notes/a'"),
        ([("notes/a", b""), ("notes/a/", b"")], "clashes with 'notes/a'"),
        ([("notes/a", b""), ("notes/a/b", b"")], "is also a file"),
        ([("NOTES", b""), ("notes/a", b"")], "is also a file"),
        ([("notes/a", bytes(3 << 20)), ("notes/b", bytes(2 << 20))], "more than 4194304"),
        ([("notes/a", bytes((3 << 20) + 1))], "more than 3145728"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_what_is_left_out_hides_nothing(entries: list[tuple[str, bytes]], words: str, tmp_path: Path) -> None:
    path = make_zip(tmp_path / "m.zip", *((entry(name), content) for name, content in entries))
    assert_refused(path, words, left_out=is_note)


def test_links_and_encryption_are_refused_where_nothing_is_written(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "m.zip", (entry("notes/a", stat.S_IFLNK | 0o777), b"/etc"))
    assert_refused(path, "a link", left_out=is_note)
    path = make_zip(tmp_path / "m.zip", (entry("notes/a"), b"1"))
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(bytes(raw))
    assert_refused(path, "encrypted", left_out=is_note)


def test_names_that_are_no_text(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "m.zip", (entry("größe"), b"1"))
    path.write_bytes(path.read_bytes().replace("größe".encode(), b"gr\xff\xff\xff\xffe"))
    assert_refused(path, "not a valid zip")
