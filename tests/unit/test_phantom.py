"""Phantom datasets: complete, varied, and the same for the same seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from segwright.core.dataset import load_dataset
from segwright.core.errors import DatasetError, SettingsError
from segwright.core.files import file_digest
from segwright.images.readers import choose_reader, read_image, read_label
from segwright.phantom import PRESETS, make_phantom

SMALL = tuple(name for name in PRESETS if name != "large")


def digests(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): file_digest(path) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("preset", SMALL)
def test_a_phantom_is_a_complete_dataset(preset: str, tmp_path: Path) -> None:
    folder = make_phantom(preset, 3, 7, tmp_path / "Dataset900_Phantom", test_cases=1)
    dataset = load_dataset(folder)
    reader = choose_reader(dataset.file_ending)
    assert [case.case_id for case in dataset.training] == ["phantom_000", "phantom_001", "phantom_002"]
    assert [case.case_id for case in dataset.test] == ["phantom_003"]
    assert dataset.num_training == 3
    expected = set(dataset.labels.all_labels) | ({dataset.labels.ignore_label} - {None})
    for case in dataset.training:
        assert case.label_file is not None
        image, label = read_image(case.image_files, reader), read_label(case.label_file, reader)
        assert len(image.array_czyx) == len(dataset.channel_names)
        assert image.geometry == label.geometry
        assert np.isfinite(image.array_czyx).all()
        assert image.stored_dtype == PRESETS[preset].stored
        values, counts = np.unique(label.array_zyx, return_counts=True)
        assert set(values.tolist()) == expected
        assert counts[1:].min() >= 20
    reference = read_label(folder / "labelsTs" / f"phantom_003{dataset.file_ending}", reader)
    assert set(np.unique(reference.array_zyx).tolist()) == set(dataset.labels.all_labels)  # complete, nothing ignored


def test_cases_differ_in_shape_spacing_position_and_contrast(tmp_path: Path) -> None:
    dataset = load_dataset(make_phantom("plain", 5, 0, tmp_path / "p"))
    images = [read_image(case.image_files, "SimpleITKIO") for case in dataset.training]
    labels = [read_label(case.label_file, "SimpleITKIO").array_zyx for case in dataset.training if case.label_file]
    assert len({image.geometry.shape_zyx for image in images}) == 5
    spacings = np.array([image.geometry.spacing_zyx for image in images])
    assert len(np.unique(spacings[:, 0])) == 5 and np.abs(spacings - 1).max() <= 0.1
    centres = [np.argwhere(label > 0).mean(axis=0) for label in labels]
    assert np.ptp(centres, axis=0).min() > 1
    means = [float(image.array_czyx[0][label == 1].mean()) for image, label in zip(images, labels, strict=True)]
    assert max(means) - min(means) > 20
    for image, label in zip(images, labels, strict=True):  # a threshold does not solve it, but there is a contrast
        tissue, organ = image.array_czyx[0][label == 0], image.array_czyx[0][label == 1]
        assert tissue.mean() + 0.5 * tissue.std() < organ.mean() < tissue.mean() + 4 * tissue.std()
        assert (tissue > np.percentile(organ, 5)).sum() > 0.2 * len(organ)


def test_the_same_seed_gives_the_same_bytes_whatever_else_is_made(tmp_path: Path) -> None:
    for preset in ("regions_ignore", "2d"):
        first = digests(make_phantom(preset, 2, 5, tmp_path / f"{preset}_a", test_cases=1))
        assert first == digests(make_phantom(preset, 2, 5, tmp_path / f"{preset}_b", test_cases=1))
        other = digests(make_phantom(preset, 2, 6, tmp_path / f"{preset}_c", test_cases=1))
        assert all(first[name] != other[name] for name in first)
    more = digests(make_phantom("2d", 3, 5, tmp_path / "more", test_cases=1))
    assert more["imagesTr/phantom_001_0000.png"] == first["imagesTr/phantom_001_0000.png"]
    assert more["imagesTs/phantom_003_0000.png"] == first["imagesTs/phantom_002_0000.png"]


def test_ct_is_in_hounsfield_units_in_air(tmp_path: Path) -> None:
    dataset = load_dataset(make_phantom("ct", 1, 0, tmp_path / "ct"))
    assert dataset.channel_names == ("CT",)
    image = read_image(dataset.training[0].image_files, "SimpleITKIO").array_czyx[0]
    assert image.min() >= -1024 and image.max() <= 3071
    assert abs(float(image[:, 0, 0].mean()) + 1000) < 15
    assert 0.2 < float((image < -500).mean()) < 0.6


def test_tumour_regions_are_nested_in_a_brain_in_black(tmp_path: Path) -> None:
    dataset = load_dataset(make_phantom("regions", 5, 0, tmp_path / "r"))
    assert dataset.labels.foreground_regions == ((1, 2, 3), (2, 3), 3)
    image = read_image(dataset.training[0].image_files, "SimpleITKIO").array_czyx
    assert (image == 0).mean() > 0.25
    assert dataset.training[4].label_file is not None
    without = read_label(dataset.training[4].label_file, "SimpleITKIO").array_zyx
    assert set(np.unique(without).tolist()) == {0, 1, 2}  # every fifth case has no enhancing part


def test_half_of_the_slices_are_not_annotated(tmp_path: Path) -> None:
    dataset = load_dataset(make_phantom("ignore", 2, 0, tmp_path / "i"))
    assert dataset.labels.ignore_label == 3
    for case in dataset.training:
        assert case.label_file is not None
        label = read_label(case.label_file, "SimpleITKIO").array_zyx
        assert 0.4 < float((label == 3).mean()) < 0.7


def test_large_is_several_times_a_small_patch(tmp_path: Path) -> None:
    dataset = load_dataset(make_phantom("large", 1, 0, tmp_path / "l", test_cases=0))
    shape = read_image(dataset.training[0].image_files, "SimpleITKIO").geometry.shape_zyx
    assert np.prod(shape) > 4 * 32**3  # a 32-voxel patch covers less than a quarter: method 3.10
    assert dataset.test == ()


def test_wrong_requests_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no phantom `brain`; known: plain, regions"):
        make_phantom("brain", 1, 0, tmp_path / "x")
    with pytest.raises(SettingsError, match="at least one training case"):
        make_phantom("plain", 0, 0, tmp_path / "x")
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "mine").write_text("precious")
    with pytest.raises(DatasetError, match="never overwritten"):
        make_phantom("plain", 1, 0, tmp_path / "x")
    assert (tmp_path / "x" / "mine").read_text() == "precious"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
