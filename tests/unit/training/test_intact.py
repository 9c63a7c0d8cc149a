"""Files are compared with their digests once, by whichever attempt comes to it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from segwright.core.errors import DamagedFileError, InterruptedForRetry
from segwright.core.files import file_digest, read_json, write_text
from segwright.core.recorded import RecordedFile
from segwright.training.intact import require_intact

CASES = [f"case_{number}" for number in range(8)]


@dataclass(frozen=True)
class Noting(RecordedFile):
    """A recorded file that notes when it is read."""

    read: list[str] = field(default_factory=list)

    def verify(self) -> Path:
        self.read.append(str(self.case_id))
        return super().verify()


class Files:
    """Small recorded files that remember who was read."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.read = folder, list[str]()
        for case_id in CASES:
            write_text(self.path(case_id), case_id)
        self.digests = {case_id: file_digest(self.path(case_id)) for case_id in CASES}

    def path(self, case_id: str) -> Path:
        return self.folder / case_id

    def recorded(self) -> list[RecordedFile]:
        source = self.folder / "list.json"
        return [Noting(self.path(name), self.digests[name], source, case_id=name, read=self.read) for name in CASES]

    def read_again(self, noted: Path | None) -> list[str]:
        self.read.clear()
        require_intact(self.recorded(), 2, noted)
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
    with pytest.raises(DamagedFileError, match=r"case case_6: its content is not what .*list\.json recorded"):
        files.read_again(noted)
    assert sorted(files.read) == ["case_5", "case_6"]
    files.path("case_1").unlink()
    with pytest.raises(DamagedFileError, match=r"case case_1: .*list\.json names this file, but it is missing"):
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
        require_intact(files.recorded(), threads, noted, end_after_three)
    assert sorted(read_json(noted)) == sorted(str(files.path(case_id)) for case_id in CASES[:3])
    assert files.read_again(noted) == CASES[3:]


def test_who_is_killed_without_a_word_keeps_what_was_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, noted, found = Files(tmp_path / "files"), tmp_path / "intact.json", list[int]()
    monkeypatch.setattr("segwright.training.intact._NOTE_EVERY_S", 0.0)
    require_intact(files.recorded(), 1, noted, lambda: found.append(len(read_json(noted)) if noted.is_file() else 0))
    assert found == [1, 2, 3, 4, 5, 6, 7, 8], "at every moment the file holds what was read by then"


def test_one_case_in_two_stores_is_two_files(tmp_path: Path) -> None:
    images, maps = Files(tmp_path / "images"), Files(tmp_path / "maps")
    before = maps.path("case_2").stat()
    maps.path("case_2").write_text("case_9")
    os.utime(maps.path("case_2"), ns=(before.st_atime_ns, before.st_mtime_ns))  # a flipped bit leaves no trace
    with pytest.raises(DamagedFileError, match=r"maps/case_2: case case_2: its content .*maps/list\.json"):
        require_intact([*images.recorded(), *maps.recorded()], 1)
    assert images.read == CASES and maps.read[:3] == CASES[:3]
