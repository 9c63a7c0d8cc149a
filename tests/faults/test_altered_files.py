"""One bit flipped in a file is noticed before the file is used, and the message names it and what to delete."""

from __future__ import annotations

import json
import os
import random
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from segwright.core.errors import DamagedFileError, SegwrightError
from segwright.core.files import SEAL, file_digest, read_json, write_json
from segwright.inference.next_stage import write_label_array, write_next_stage
from segwright.preprocessing.batch import write_index
from segwright.preprocessing.store import PreprocessedStore
from segwright.sharing.archive import extract_archive, write_archive
from segwright.splits import Fold, read_fold, write_splits
from segwright.training.intact import require_intact
from segwright.training.previous_stage import read_next_stage, read_previous_stage
from segwright.training.state import StateFolder
from tests.unit.training.stored import make_cases, write_store

FLIPS = 60  # positions tried in each file, spread over all of it


def flip(path: Path, position: int, bit: int) -> None:
    """Change one bit; size and modification time stay."""
    before = path.stat()
    content = bytearray(path.read_bytes())
    content[position] ^= 1 << bit
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def flips(path: Path, number: int = FLIPS) -> list[tuple[int, int]]:
    """Position and bit of as many flips, evenly spread over the file."""
    generator, size = random.Random(path.name), path.stat().st_size
    return [(size * step // number, generator.randrange(8)) for step in range(number)]


def assert_noticed(path: Path, use: Callable[[], object], *named: str) -> int:
    """Every flip either is refused with a message that names the file, or leaves what is used as it was."""
    wanted, original = repr(use()), path.read_bytes()
    noticed = 0
    for position, bit in flips(path):
        flip(path, position, bit)
        try:
            found = repr(use())
        except SegwrightError as error:
            text = str(error)
            assert path.name in text and any(word in text for word in ("delete", *named)), text
            noticed += 1
        else:
            assert found == wanted, f"bit {bit} of byte {position} of {path.name} went unnoticed"
        path.write_bytes(original)
    return noticed


def test_every_byte_of_a_sealed_file(tmp_path: Path) -> None:
    path = tmp_path / "slice.json"
    content = {"patch": [32, 64], "scheme": "Z-score", "ratio": 0.1, "nested": {"größe": None}}
    write_json(path, content, sealed=True)
    assert read_json(path) == content and SEAL in json.loads(path.read_text())
    original = path.read_bytes()
    for position in range(len(original)):
        flip(path, position, position % 8)
        try:
            found = read_json(path)
        except DamagedFileError as error:
            assert str(path) in str(error) and "delete it" in str(error)
        else:  # white space, or the name of the seal itself: what is used is unharmed
            assert {key: value for key, value in found.items() if key in content} == content
        path.write_bytes(original)
    write_json(path, content)
    assert read_json(path) == content  # unsealed files of older runs are read as before


def test_split(tmp_path: Path) -> None:
    write_splits(tmp_path, [Fold("0", ("case_1", "case_2"), ("case_3",))], {}, {})
    path = tmp_path / "fold_0.json"
    assert assert_noticed(path, lambda: read_fold(path)) > FLIPS // 2


def test_preprocessed_cases_and_their_lists(tmp_path: Path) -> None:
    index = write_store(tmp_path, make_cases(2, (10, 14, 12)))
    write_index([tmp_path / "batch_0.json"], index)
    case_ids = PreprocessedStore(index).case_ids

    def use() -> object:
        store = PreprocessedStore(index)
        require_intact([store.file(case_id) for case_id in case_ids], 2)
        return [(store.open(case_id).image_czyx.sum(), store.file(case_id).digest) for case_id in case_ids]

    stored = PreprocessedStore(index).file(case_ids[0]).path
    assert assert_noticed(stored, use) == FLIPS
    with pytest.raises(
        DamagedFileError, match=r"case_0: its content .*delete .*batch_\w+\.json and .*index\.json, then"
    ):
        flip(stored, -1, 0)
        use()
    flip(stored, -1, 0)
    assert assert_noticed(index, use) > FLIPS // 2
    assert assert_noticed(tmp_path / "batch_0.json", use) == FLIPS


def test_label_maps_for_the_next_stage(tmp_path: Path) -> None:
    label_zyx = np.random.default_rng(0).integers(0, 3, (6, 8, 8)).astype(np.uint8)
    path = tmp_path / "fold_0" / "next_stage" / "cascade" / "case_1.npy"
    write_label_array(path, label_zyx)
    listed = tmp_path / "next_stage.json"
    write_next_stage(listed, {"cascade": {"case_1": (path, file_digest(path))}})

    def trained_with() -> np.ndarray:
        maps = read_previous_stage(listed, "cascade")
        require_intact([maps.file("case_1")], 1)
        return np.array(maps.open("case_1", (6, 8, 8)))

    remedy = r"fold_0/next_stage.json and .*next_stage.json, then run again"
    for use in (
        trained_with,
        lambda: np.array(read_previous_stage(listed, "cascade").open_intact("case_1", (6, 8, 8))),
    ):
        assert assert_noticed(path, use) == FLIPS
        with pytest.raises(DamagedFileError, match=remedy):
            flip(path, -1, 0)
            use()
        flip(path, -1, 0)
    assert assert_noticed(listed, lambda: read_next_stage(listed)) > FLIPS // 2


def test_training_state_falls_back_to_the_one_before(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    states = StateFolder(tmp_path, {"data": "x"})
    states.open()
    for epoch in (1, 2):
        states.save(epoch, {"epoch": epoch})
    saved = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for name in ("epoch_000002.pt", "epoch_000002.json"):
        for position, bit in flips(tmp_path / name, 20):
            flip(tmp_path / name, position, bit)
            state = states.load()
            assert state is not None and state["epoch"] in (1, 2)
            if state["epoch"] == 1:
                assert "epoch_000002" in caplog.text
            for path, content in saved.items():
                path.write_bytes(content)
    flip(tmp_path / "epoch_000002.pt", -5, 0)
    loaded = states.load()
    assert loaded is not None and loaded["epoch"] == 1 and not (tmp_path / "epoch_000002.pt").exists()


def test_archive(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "weights").write_bytes(np.random.default_rng(0).bytes(400))
    archive = tmp_path / "model.zip"
    write_archive(archive, folder, ["weights"])

    def use() -> object:
        target = tmp_path / "out"
        extract_archive(archive, target, lambda name: name == "weights")
        content = (target / "weights").read_bytes()
        (target / "weights").unlink()
        target.rmdir()
        return content

    with zipfile.ZipFile(archive) as opened:
        assert opened.namelist() == ["weights"]
    assert assert_noticed(archive, use, "get it again", "again") > FLIPS // 2
