"""A full disk and a folder that may not be written to: one message, nothing lost, and on it goes."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from segwright.core.errors import SegwrightError, StorageError
from segwright.core.files import TEMPORARY_PREFIX, atomic_path, file_digest, storage_error, write_bytes, write_json
from segwright.core.geometry import Geometry
from segwright.images.readers import write_label
from segwright.training.fold import run_training
from tests.unit.training.fake_training import make_data, make_request, train

DISK_BYTES = 4 << 20
_STORED_BY_ITK = (".nii.gz", ".nrrd", ".mha", ".gipl")
GRID = Geometry((40, 64, 64), (1.0,) * 3, (0.0,) * 3, (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))
FLAT = Geometry((1, 64, 64), (1.0,) * 3, (0.0,) * 2, (1.0, 0, 0, 1.0), 2)


@contextlib.contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """A small file system of its own in memory; skips where this user may not mount."""
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"cannot mount a small file system here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "disk", f"size={DISK_BYTES}") as folder:
        yield folder


def fill(disk: Path, leave_bytes: int) -> Path:
    """Fill the disk but for so many bytes; deleting the file makes space again."""
    path = disk / "something else"
    path.write_bytes(b"x" * max(0, shutil.disk_usage(disk).free - leave_bytes))
    return path


def set_read_only(disk: Path, read_only: bool) -> None:
    subprocess.run(["mount", "-o", f"remount,{'ro' if read_only else 'rw'}", str(disk)], check=True)


def snapshot(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): file_digest(path) for path in folder.rglob("*") if path.is_file()}


def test_files_of_every_writer_on_a_full_disk(disk: Path) -> None:
    labels = np.random.default_rng(0).integers(0, 60_000, GRID.shape_zyx).astype(np.uint16)
    writers = {
        "small.json": lambda path: write_json(path, {"new": list(range(9999))}),
        "labels.nii.gz": lambda path: write_label(path, labels, GRID, "SimpleITKIO"),
        **{f"labels{ending}": lambda path: write_label(path, labels, GRID, "SimpleITKIO") for ending in _STORED_BY_ITK},
        "picture.png": lambda path: write_label(path, labels[:1], FLAT, "NaturalImage2DIO"),
        "stack.tif": lambda path: write_label(path, labels, GRID, "Tiff3DIO"),
        "weights.safetensors": lambda path: write_bytes(path, bytes(1 << 20)),
    }
    for name in writers:
        (disk / name).write_bytes(b"the old one")
    blocking = fill(disk, 4 << 10)
    before = snapshot(disk)
    for name, write in writers.items():
        with pytest.raises(
            StorageError, match=rf"{name}: cannot be written, no space is left .*; free some space, then"
        ):
            write(disk / name)
        assert snapshot(disk) == before, "the old files are intact and nothing half-written is left"
    blocking.unlink()
    for name, write in writers.items():
        write(disk / name)
        assert (disk / name).read_bytes() != b"the old one"


def test_training_on_a_full_disk_goes_on_after_space_is_made(disk: Path, tmp_path: Path) -> None:
    straight = train(tmp_path / "straight")
    output = disk / "fold_0"
    blocking: list[Path] = []

    def fill_up(epoch: int, step: int, batch: object) -> object:
        if epoch == 2 and not blocking:
            blocking.append(fill(disk, 4 << 10))
        return batch

    with pytest.raises(SegwrightError, match=r"no space is left.*free some space, then run again"):
        run_training(make_request(output), make_data(spoil=fill_up), {})  # type: ignore[arg-type]
    saved = sorted(path.stem for path in (output / "state").glob("epoch_*.json"))
    assert saved == ["epoch_000001", "epoch_000002"]
    assert not list(output.rglob(f"{TEMPORARY_PREFIX}*")) and not (output / "model.safetensors").exists()
    with pytest.raises(SegwrightError, match="no space is left"):
        train(output)  # again, at once
    blocking[0].unlink()
    assert train(output) == straight


def test_read_only_folder(disk: Path, tmp_path: Path) -> None:
    output = disk / "fold_0"
    train(output, epochs=2)
    before = snapshot(disk)
    set_read_only(disk, True)
    with pytest.raises(StorageError, match=r"state/lock: cannot be written, the file system is read-only .*writable"):
        train(output, epochs=6)
    with pytest.raises(StorageError, match=r"new/x.json: cannot be written, the file system is read-only"):
        write_json(disk / "new" / "x.json", {})
    assert snapshot(disk) == before
    set_read_only(disk, False)
    assert train(output, epochs=6) == train(tmp_path / "straight", epochs=6)


def test_quota_and_errors_of_other_files(tmp_path: Path) -> None:
    quota = storage_error(tmp_path / "x", OSError(errno.EDQUOT, "Disk quota exceeded"))
    assert quota is not None and "your quota is used up" in str(quota)
    assert storage_error(tmp_path / "x", PermissionError(errno.EACCES, "no", "/elsewhere/input.nii.gz")) is None
    assert storage_error(tmp_path / "x", FileNotFoundError(errno.ENOENT, "no", str(tmp_path / "y"))) is None
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "x") as temporary:
        shutil.copy(tmp_path / "missing", temporary)
    with pytest.raises(RuntimeError, match="of another kind"), atomic_path(tmp_path / "x"):
        raise RuntimeError("of another kind")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folder_without_the_right_to_write(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StorageError, match="you may not write there"):
        write_json(tmp_path / "x.json", {})
    tmp_path.chmod(0o700)
