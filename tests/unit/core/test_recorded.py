"""Whether a file still is what another file recorded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from segwright.core.errors import DamagedFileError
from segwright.core.files import bytes_digest
from segwright.core.recorded import RecordedFile


def test_a_file_that_is_what_was_recorded_gives_its_path(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"content")
    file = RecordedFile(tmp_path / "a", bytes_digest(b"content"), tmp_path / "list.json")
    assert file.problem() is None and file.verify() == tmp_path / "a"


def nothing(path: Path) -> None:
    path.parent.mkdir()


def no_folder(path: Path) -> None:
    path.parent.write_bytes(b"")


def folder(path: Path) -> None:
    path.mkdir(parents=True)


def another(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"Content")


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (another, "its content is not what {source} recorded"),
        (nothing, "{source} names this file, but it is missing"),
        (no_folder, "{source} names this file, but it is missing"),
        (folder, "cannot be read (Is a directory)"),
    ],
)
def test_what_is_wrong_is_said_with_the_case_and_what_to_do(
    tmp_path: Path, make: Callable[[Path], None], problem: str
) -> None:
    path, source = tmp_path / "files" / "a", tmp_path / "list.json"
    make(path)
    expected = problem.format(source=source)
    file = RecordedFile(path, bytes_digest(b"content"), source)
    assert file.problem() == expected
    with pytest.raises(DamagedFileError) as caught:
        file.verify()
    assert str(caught.value) == f"{path}: {expected}; delete {source} and run again"
    with pytest.raises(DamagedFileError) as caught:
        RecordedFile(path, file.digest, source, "copy it again", "case_1").verify()
    assert str(caught.value) == f"{path}: case case_1: {expected}; copy it again"
