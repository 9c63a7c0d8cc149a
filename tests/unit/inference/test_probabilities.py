"""Probability files: exact, compact, verified; and their mean (method 10.7)."""

from __future__ import annotations

import hashlib
import json
import zlib
from pathlib import Path

import numpy as np
import pytest

from segwright.core.errors import DamagedFileError, DatasetError
from segwright.inference import probabilities as module
from segwright.inference import score_file
from segwright.inference.export import labels_from_logits, labels_from_probability_slabs
from segwright.inference.interpolation import slabs_of
from segwright.inference.probabilities import (
    ProbabilityFile,
    ScoreArray,
    mean_labels,
    mean_probabilities,
    write_npz,
    write_probabilities,
)
from segwright.inference.score_file import ScoreFile, write_scores

from .conftest import PLAIN, REGIONS, geometry, predict_plan, properties_of
from .test_export import case, probabilities_at_once


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several blocks a file and several ranges a case, at test size."""
    monkeypatch.setattr(score_file, "_BLOCK_BYTES", 4000)
    monkeypatch.setattr(module, "slabs_of", lambda axes, _: [(0, 3)].__iter__() if axes else slabs_of(axes, 1))
    monkeypatch.setattr(module, "_CACHE_VALUES", 300)  # one plane of three classes or two of two regions


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("labels", [PLAIN, REGIONS])
def test_a_file_gives_the_same_probabilities_as_the_scores(tmp_path: Path, labels: dict) -> None:
    plan, properties, scores = case(labels)
    write_probabilities(tmp_path / "case.probabilities", scores, properties, plan)
    found = mean_probabilities([ProbabilityFile(tmp_path / "case.probabilities")])
    assert found.array_czyx.dtype == np.float32
    np.testing.assert_array_equal(found.array_czyx, probabilities_at_once(scores, properties, plan))
    assert (found.properties, found.plan) == (properties, plan)
    label = mean_labels([ProbabilityFile(tmp_path / "case.probabilities")])
    np.testing.assert_array_equal(label, labels_from_logits(scores, properties, plan))


@pytest.mark.usefixtures("small_blocks")
def test_mean_of_two_configurations(tmp_path: Path) -> None:
    """The members' own grids differ; the cropped original grid is common."""
    plan, properties, scores = case(PLAIN)
    other_plan, other_properties, _ = case(PLAIN, spacing_mm=(2.0, 1.5, 0.9))
    other = np.random.default_rng(9).normal(size=(3, *other_properties.shape)).astype(np.float32)
    write_probabilities(tmp_path / "a", scores, properties, plan)
    write_probabilities(tmp_path / "b", other, other_properties, other_plan)
    files = [ProbabilityFile(tmp_path / name) for name in "ab"]
    label = mean_labels(files)
    mean = mean_probabilities(files)
    single = [mean_probabilities([file]).array_czyx for file in files]
    np.testing.assert_array_equal(mean.array_czyx, (single[0] + single[1]) / 2)
    np.testing.assert_array_equal(label, labels_from_probability_slabs([mean.array_czyx], properties, plan))
    np.testing.assert_array_equal(label, mean_labels(files, mean))
    in_memory = mean_labels([ScoreArray(scores, properties, plan), ScoreArray(other, other_properties, other_plan)])
    np.testing.assert_array_equal(label, in_memory)


def test_probabilities_come_in_ranges_that_fit_the_cache() -> None:
    plan = predict_plan(PLAIN)
    properties = properties_of(plan.preprocess, geometry((30, 40, 50)))
    scores = np.random.default_rng(4).normal(size=(3, *properties.shape)).astype(np.float32)
    slabs = list(ScoreArray(scores, properties, plan).slabs())
    assert max(slab.size for slab in slabs) <= module._CACHE_VALUES < scores.size
    expected = probabilities_at_once(scores, properties, plan)
    np.testing.assert_array_equal(np.concatenate(slabs, axis=1), expected)


def test_scores_are_kept_bit_by_bit_and_reproducibly(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(2, 9, 20, 15)).astype(np.float32)
    scores[0, 0] = 0
    scores[1, 1, :3] = [[np.float32(1e-45)], [np.float32(-0.0)], [np.float32(3e38)]]
    write_scores(tmp_path / "a", scores, {"x": 1})
    write_scores(tmp_path / "b", scores, {"x": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    file = ScoreFile(tmp_path / "a")
    assert file.shape == (2, 9, 20, 15) and file.facts == {"x": 1}
    assert file.planes(0, 9).tobytes() == scores.tobytes()
    assert file.planes(3, 5).tobytes() == scores[:, 3:5].tobytes()


def test_smooth_scores_shrink(tmp_path: Path) -> None:
    ramp = np.linspace(-8, -7, 40000, dtype=np.float32).reshape(1, 10, 40, 100)
    write_scores(tmp_path / "a", np.concatenate([ramp, np.zeros_like(ramp)]), {})
    assert (tmp_path / "a").stat().st_size < 0.5 * 2 * ramp.nbytes


@pytest.mark.parametrize("where", ["block", "directory", "end", "start"])
def test_an_altered_file_is_refused(tmp_path: Path, where: str) -> None:
    plan, properties, scores = case(PLAIN)
    path = tmp_path / "case.probabilities"
    write_probabilities(path, scores, properties, plan)
    content = bytearray(path.read_bytes())
    position = {"block": 500, "directory": len(content) - 100, "end": len(content) - 12, "start": 2}[where]
    content[position] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(DamagedFileError, match=r"case\.probabilities"):
        mean_probabilities([ProbabilityFile(path)])


def test_a_verified_file_is_not_hashed_again(tmp_path: Path) -> None:
    scores = np.random.default_rng(1).normal(size=(2, 9, 20, 15)).astype(np.float32)
    path = tmp_path / "a"
    write_scores(path, scores, {})
    content = bytearray(path.read_bytes())
    content[content.index(b'{"shape"') - 1] ^= 1  # the last bit of the last score
    path.write_bytes(bytes(content))
    with pytest.raises(DamagedFileError, match="planes 0 to 9"):
        ScoreFile(path).planes(0, 9)
    assert np.count_nonzero(ScoreFile(path, verified=True).planes(0, 9) != scores) == 1


@pytest.mark.parametrize("size", [0, 5, 60, -1])
def test_a_truncated_or_missing_file_is_refused(tmp_path: Path, size: int) -> None:
    plan, properties, scores = case(PLAIN)
    path = tmp_path / "case.probabilities"
    write_probabilities(path, scores, properties, plan)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(DamagedFileError):
        ProbabilityFile(path)
    path.unlink()
    with pytest.raises(DamagedFileError, match="does not exist"):
        ProbabilityFile(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"facts": []},
        {"facts": {"kind": "ranks"}},
        {"facts": {"plan": "3d_fullres"}},
        {"facts": {"properties": {}}},
        {"shape": [3, 2]},
        {"planes_per_block": 0},
        {"blocks": []},
        {"blocks": [{}]},
        {"block": {"offset": -1}},
        {"block": {"offset": 1 << 40}},
        {"block": {"offset": None}},
        {"block": {"sizes": []}},
        {"block": {"sizes": [1, 1, 1]}},
        {"block": {"sizes": [1 << 40] * 4}},
        {"block": {"sizes": [0.5] * 4}},
        {"block": {"sizes": [1] * 4}},
    ],
)
def test_a_directory_that_is_not_ours_is_refused_with_its_file(tmp_path: Path, changes: dict) -> None:
    plan, properties, scores = case(PLAIN)
    path = tmp_path / "case.probabilities"
    write_probabilities(path, scores, properties, plan)
    content = path.read_bytes()
    length = int.from_bytes(content[-16:-8], "little")
    start = len(content) - score_file._TAIL_BYTES - length
    directory = json.loads(content[start : start + length])
    if isinstance(changes.get("facts"), dict):
        changes = {"facts": {**directory["facts"], **changes["facts"]}}
    if "block" in changes:
        changes = {"blocks": [{**directory["blocks"][0], **changes["block"]}, *directory["blocks"][1:]]}
    text = json.dumps({**directory, **changes}).encode()
    tail = hashlib.sha256(text).digest() + len(text).to_bytes(8, "little") + content[-8:]
    path.write_bytes(content[:start] + text + tail)
    with pytest.raises(DamagedFileError, match=r"case\.probabilities"):
        ProbabilityFile(path)


def test_a_file_cannot_claim_more_than_its_bytes_inflate_to(tmp_path: Path) -> None:
    """A terabyte of scores in a few hundred bytes."""
    write_scores(tmp_path / "a", np.zeros((2, 3, 40, 50), np.float32), {})
    ScoreFile(tmp_path / "a")
    content = (tmp_path / "a").read_bytes()
    length = int.from_bytes(content[-16:-8], "little")
    start = len(content) - score_file._TAIL_BYTES - length
    text = content[start : start + length].replace(b"[2,3,40,50]", b"[2,3,400000,500000]")
    tail = hashlib.sha256(text).digest() + len(text).to_bytes(8, "little") + content[-8:]
    (tmp_path / "a").write_bytes(content[:start] + text + tail)
    with pytest.raises(DamagedFileError, match=r"a block of 1200000000000 values in \d+ bytes"):
        ScoreFile(tmp_path / "a")


@pytest.mark.parametrize("part", [b"garbage", zlib.compress(b"short")])
def test_a_block_that_inflates_to_something_else_is_refused(
    part: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score_file, "_compressed", lambda _: [part] * 4)
    write_scores(tmp_path / "a", np.zeros((2, 3, 4, 5), np.float32), {})
    with pytest.raises(DamagedFileError, match="its planes 0 to 3 do not inflate"):
        ScoreFile(tmp_path / "a").planes(0, 3)


def test_predictions_of_different_cases_are_not_averaged(tmp_path: Path) -> None:
    plan, properties, scores = case(PLAIN)
    write_probabilities(tmp_path / "a", scores, properties, plan)
    elsewhere = properties_of(plan.preprocess, geometry((11, 12, 11)))
    write_probabilities(tmp_path / "b", np.zeros((3, *elsewhere.shape), np.float32), elsewhere, plan)
    with pytest.raises(DatasetError, match="cannot be averaged"):
        mean_labels([ProbabilityFile(tmp_path / name) for name in "ab"])


def test_npz_on_the_raw_grid_is_background_outside_the_crop(tmp_path: Path) -> None:
    plan, properties, scores = case(PLAIN)
    write_npz(tmp_path / "case.npz", mean_probabilities([ScoreArray(scores, properties, plan)]))
    with np.load(tmp_path / "case.npz", allow_pickle=False) as content:
        array = content["probabilities"]
    assert array.shape == (3, 10, 12, 11) and array.dtype == np.float32
    np.testing.assert_allclose(array.sum(axis=0), 1, atol=1e-6)
    assert (array[0, :, :, 0] == 1).all()  # x is the first transposed axis; its plane 0 was cropped away
    np.testing.assert_array_equal(array.argmax(axis=0), labels_from_logits(scores, properties, plan))
    plan, properties, scores = case(REGIONS)
    write_npz(tmp_path / "regions.npz", mean_probabilities([ScoreArray(scores, properties, plan)]))
    assert (np.load(tmp_path / "regions.npz", allow_pickle=False)["probabilities"][:, :, :, 0] == 0).all()


def test_mean_of_one_is_itself() -> None:
    plan, properties, scores = case(PLAIN)
    found = mean_probabilities([ScoreArray(scores, properties, predict_plan(PLAIN))])
    np.testing.assert_array_equal(found.array_czyx, probabilities_at_once(scores, properties, plan))
