"""Going on after a kill, and refusing to fill the disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from segwright.core.errors import DatasetError
from segwright.core.files import write_json
from segwright.inference.finished import (
    finished_digests,
    keeps_probabilities,
    note_finished,
    remove_stale,
    require_free_disk,
    write_manifest,
)


def test_a_finished_case_is_kept_only_if_inputs_and_files_fit(tmp_path: Path) -> None:
    label, extra = tmp_path / "labels" / "a.png", tmp_path / "a.npz"
    label.parent.mkdir()
    label.write_bytes(b"label")
    assert finished_digests(tmp_path, "a", "inputs", {"label": label}) is None
    digests = note_finished(tmp_path, "fold_0", "a", "inputs", {"label": label})
    assert finished_digests(tmp_path, "a", "inputs", {"label": label}) == digests
    assert finished_digests(tmp_path, "a", "other inputs", {"label": label}) is None
    assert finished_digests(tmp_path, "a", "inputs", {"label": label, "probabilities": extra}) is None
    assert finished_digests(tmp_path, "a", "inputs", {"label": tmp_path / "elsewhere.png"}) is None
    label.write_bytes(b"altered")
    assert finished_digests(tmp_path, "a", "inputs", {"label": label}) is None
    label.unlink()
    assert finished_digests(tmp_path, "a", "inputs", {"label": label}) is None


def test_a_damaged_note_only_costs_work(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"label")
    note_finished(tmp_path, "fold_0", "a", "inputs", {"label": tmp_path / "a.png"})
    (tmp_path / ".finished" / "a.json").write_text("{")
    assert finished_digests(tmp_path, "a", "inputs", {"label": tmp_path / "a.png"}) is None


@pytest.mark.parametrize("file", ["../precious", "{folder}/../precious", "sub/../../precious", 3, None])
def test_a_note_of_files_elsewhere_removes_none(tmp_path: Path, file: object) -> None:
    """Somebody's folder may hold any note; what it names outside is nobody's to remove."""
    folder = tmp_path / "output"
    (folder / ".finished").mkdir(parents=True)
    (tmp_path / "precious").write_bytes(b"x")
    (folder / "a.png").write_bytes(b"label")
    named = file.format(folder=folder) if isinstance(file, str) else file
    note = {"owner": "batch_0", "inputs": "1", "files": {"label": {"file": named, "digest": "d"}}}
    for case_id in "ab":
        write_json(folder / ".finished" / f"{case_id}.json", note)
    assert finished_digests(folder, "a", "1", {"label": folder / "a.png"}) is None
    note_finished(folder, "batch_0", "a", "2", {"label": folder / "a.png"})
    remove_stale(folder, "batch_0", {"a": {"label": folder / "a.png"}})
    assert (tmp_path / "precious").exists() and (folder / "a.png").exists()


def test_files_of_replaced_and_stale_cases_are_removed(tmp_path: Path) -> None:
    for name in ("a.1", "a.2", "b.1", "c.1"):
        (tmp_path / name).write_bytes(b"x")
    note_finished(tmp_path, "batch_0", "a", "1", {"label": tmp_path / "a.1"})
    note_finished(tmp_path, "batch_0", "a", "2", {"label": tmp_path / "a.2"})
    note_finished(tmp_path, "batch_0", "b", "1", {"label": tmp_path / "b.1"})
    note_finished(tmp_path, "batch_1", "c", "1", {"label": tmp_path / "c.1"})
    remove_stale(tmp_path, "batch_0", {"a": {"label": tmp_path / "a.2"}})
    assert sorted(path.name for path in tmp_path.glob("*.?")) == ["a.2", "c.1"]


def test_what_killed_writers_left_of_ones_own_cases_is_removed(tmp_path: Path) -> None:
    halves = [folder / f".part-0123456789ab-{case}" for case in "ab" for folder in (tmp_path, tmp_path / ".finished")]
    (tmp_path / ".finished").mkdir()
    for half in halves:
        half.with_name(f"{half.name}.json").write_bytes(b"half")
    remove_stale(tmp_path, "batch_0", {"a": {"label": tmp_path / "a.json"}})
    left = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob(".part-*"))
    assert left == [".finished/.part-0123456789ab-b.json", ".part-0123456789ab-b.json"]


def test_a_full_disk_is_refused_with_numbers(tmp_path: Path) -> None:
    require_free_disk(tmp_path, 1, "the probabilities")
    with pytest.raises(DatasetError, match=r"the probabilities need up to 1048576\.0 GiB but only .* free"):
        require_free_disk(tmp_path, 2**50, "the probabilities")


def test_a_manifest_tells_whether_it_keeps_probabilities(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    assert not keeps_probabilities(path)
    write_manifest(path, tmp_path, {})
    assert not keeps_probabilities(path)
    write_manifest(path, tmp_path, {"a": {"file": "probabilities/a.probabilities"}})
    assert keeps_probabilities(path)
    kept = {"file": "cases/a.nii.gz", "probabilities": {"file": "cases/a.probabilities"}}
    write_manifest(path, tmp_path, {"a": kept})
    assert keeps_probabilities(path)
    write_manifest(path, tmp_path, {"a": kept, "b": {"file": "cases/b.nii.gz"}})
    assert not keeps_probabilities(path)
    path.write_text('{"cases": [')
    assert not keeps_probabilities(path)
