"""Files are compared with their digests once, by whichever attempt comes to it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from segwright.core.errors import DamagedFileError, InterruptedForRetry
from segwright.core.files import file_digest, read_json, write_text
from segwright.training.intact import require_intact

CASES = [f"case_{number}" for number in range(8)]


class Files:
    """Small recorded files that remember who was read."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.read = folder, list[str]()
        for case_id in CASES:
            write_text(self.path(case_id), case_id)
        self.digests = {case_id: file_digest(self.path(case_id)) for case_id in CASES}

    def path(self, case_id: str) -> Path:
        return self.folder / case_id

    def digest(self, case_id: str) -> str:
        return self.digests[case_id]

    def verify(self, case_id: str) -> None:
        self.read.append(case_id)
        if not self.path(case_id).is_file() or file_digest(self.path(case_id)) != self.digests[case_id]:
            raise DamagedFileError(self.path(case_id), f"case {case_id}: altered")

    def read_again(self, noted: Path | None) -> list[str]:
        self.read.clear()
        require_intact([self], CASES, 2, noted)
        return sorted(self.read)


def test_files_are_read_once_until_they_change(tmp_path: Path) -> None:
    files, noted = Files(tmp_path / "files"), tmp_path / "intact.json"
    assert files.read_again(noted) == CASES and files.read_again(noted) == []
    assert files.read_again(None) == CASES, "nothing is kept without a place for it"
    os.utime(files.path("case_3"), (1, 1))  # as if it had been written again
    assert files.read_again(noted) == ["case_3"] and files.read_again(noted) == []
    write_text(files.path("case_5"), "longer than before")
    files.digests["case_5"] = file_digest(files.path("case_5"))
    files.digests["case_6"] = "of another run"
    with pytest.raises(DamagedFileError, match="case_6: altered"):
        files.read_again(noted)
    assert sorted(files.read) == ["case_5", "case_6"]
    files.path("case_1").unlink()
    with pytest.raises(DamagedFileError, match="case_1: altered"):
        files.read_again(noted)


def test_notes_that_were_altered_are_no_notes(tmp_path: Path) -> None:
    files, noted = Files(tmp_path / "files"), tmp_path / "intact.json"
    files.read_again(noted)
    content = noted.read_text()
    for damaged in ("[]", "{", content.replace(files.digests["case_0"], "0" * 64)):
        noted.write_text(damaged)
        assert files.read_again(noted) == CASES


@pytest.mark.parametrize("threads", [1, 3])
def test_who_has_to_end_in_between_keeps_what_was_done(tmp_path: Path, threads: int) -> None:
    files, noted, calls = Files(tmp_path / "files"), tmp_path / "intact.json", list[int]()

    def end_after_three() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise InterruptedForRetry("a signal")

    with pytest.raises(InterruptedForRetry, match="a signal"):
        require_intact([files], CASES, threads, noted, end_after_three)
    assert sorted(read_json(noted)) == sorted(str(files.path(case_id)) for case_id in CASES[:3])
    assert files.read_again(noted) == CASES[3:]


def test_who_is_killed_without_a_word_keeps_what_was_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, noted, found = Files(tmp_path / "files"), tmp_path / "intact.json", list[int]()
    monkeypatch.setattr("segwright.training.intact._NOTE_EVERY_S", 0.0)
    require_intact([files], CASES, 1, noted, lambda: found.append(len(read_json(noted)) if noted.is_file() else 0))
    assert found == [1, 2, 3, 4, 5, 6, 7, 8], "at every moment the file holds what was read by then"


def test_a_file_of_two_stores_is_named_by_the_store_that_finds_it_altered(tmp_path: Path) -> None:
    images, maps = Files(tmp_path / "images"), Files(tmp_path / "maps")
    before = maps.path("case_2").stat()
    maps.path("case_2").write_text("case_9")
    os.utime(maps.path("case_2"), ns=(before.st_atime_ns, before.st_mtime_ns))  # a flipped bit leaves no trace
    with pytest.raises(DamagedFileError, match=r"maps/case_2: case case_2: altered"):
        require_intact([images, maps], CASES, 1)
    assert images.read == CASES and maps.read[:3] == CASES[:3]
