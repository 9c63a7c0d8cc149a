"""Batches of stored cases: content, determinism, cascade, and what is told about missing data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.unit.training.stored import LABELS, make_cases, make_plan, write_store

from segwright.core.errors import DamagedFileError, DatasetError, SettingsError, TrainingError
from segwright.core.files import file_digest, write_json
from segwright.core.labels import Labels
from segwright.core.settings import TrainingSettings
from segwright.training.augmentation.pipeline import (
    AUGMENTATIONS,
    Augmentation,
    PatchFacts,
    default_augmentation,
    mirror_axes,
)
from segwright.training.augmentation.spatial import ArrayWindow
from segwright.training.loader import Batch, BatchSource
from segwright.training.workers import BatchLoader

SETTINGS = TrainingSettings(schedule="smoke", seed=5).resolved()
PATCH = (8, 12, 8)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("store"), make_cases(4, (14, 18, 16)))


def source(index: Path, **changes: object) -> BatchSource:
    facts = {
        "index": index,
        "case_ids": [f"case_{number}" for number in range(4)],
        "plan": make_plan(PATCH),
        "settings": SETTINGS,
        "training": True,
    }
    return BatchSource(**{**facts, **changes})  # type: ignore[arg-type]


def same(one: Batch, other: Batch) -> bool:
    arrays = zip([one.images, *one.targets], [other.images, *other.targets], strict=True)
    return one.case_ids == other.case_ids and all(np.array_equal(a, b) for a, b in arrays)


def where(volume: np.ndarray, patch: np.ndarray) -> tuple[slice, ...]:
    """Where a patch was taken from; it must lie inside the volume."""
    windows = np.lib.stride_tricks.sliding_window_view(volume, patch.shape)
    start = np.argwhere((windows == patch).all(axis=tuple(range(-patch.ndim, 0))))[0]
    return tuple(slice(first, first + edge) for first, edge in zip(start, patch.shape, strict=True))


def test_shapes_and_types(index: Path) -> None:
    batch = source(index).make(0, 0)
    assert batch.images.shape == (3, 1, 8, 12, 8) and batch.images.dtype == np.float32
    assert [target.shape for target in batch.targets] == [(3, 1, 8, 12, 8), (3, 1, 4, 6, 4)]
    assert batch.targets[0].dtype == np.int16 and set(np.unique(batch.targets[0])) <= {0, 1, 2}
    single = source(index, settings=replace(SETTINGS, deep_supervision=False)).make(0, 0)
    assert len(single.targets) == 1


def test_the_last_samples_show_foreground(index: Path) -> None:
    made = source(index)
    shown = [(made.make(0, step).targets[0][2] > 0).any() for step in range(20)]
    assert sum(shown) >= 19  # turning can push a border voxel out


def test_validation_copies_the_case(index: Path) -> None:
    cases = make_cases(4, (14, 18, 16))
    batch = source(index, training=False).make(0, 3)
    for image, label, case_id in zip(batch.images, batch.targets[0], batch.case_ids, strict=True):
        stored_image, stored_label = cases[case_id]
        np.testing.assert_array_equal(stored_label[where(stored_image[0], image[0])], label[0])


def test_batches_depend_on_the_key_alone(index: Path) -> None:
    one, other = source(index), source(index)
    other.make(3, 1)  # what was made before does not matter
    assert same(one.make(2, 1), other.make(2, 1))
    assert not same(one.make(2, 1), one.make(2, 2)) and not same(one.make(2, 1), one.make(1, 1))
    assert not same(one.make(0, 0), source(index, settings=replace(SETTINGS, seed=6)).make(0, 0))


def test_every_number_of_workers_gives_the_same_bytes(index: Path) -> None:
    expected = [source(index).make(1, step) for step in range(5)]
    for workers in (0, 1, 2):
        with BatchLoader(source(index), workers) as loader:
            batches = list(loader.epoch(1, 5))
        assert all(same(a, b) for a, b in zip(expected, batches, strict=True)), workers


def test_cases_are_drawn_evenly(index: Path) -> None:
    made = source(index, plan=make_plan((4, 4, 4)), training=False)
    drawn = [case for step in range(200) for case in made.make(0, step).case_ids]
    counts = [drawn.count(f"case_{number}") for number in range(4)]
    assert all(abs(count - 150) < 4 * np.sqrt(600 * 0.25 * 0.75) for count in counts)


def test_probabilistic_oversampling(index: Path) -> None:
    settings = replace(SETTINGS, probabilistic_oversampling=True, foreground_share=1.0)
    made = source(index, settings=settings, training=False, plan=make_plan((4, 4, 4)))
    assert all((target > 0).any() for step in range(10) for target in made.make(0, step).targets[0])


def test_two_dimensional_patches(index: Path) -> None:
    cases = make_cases(4, (14, 18, 16))
    plan = make_plan((10, 8), configuration="2d")
    batch = source(index, plan=plan, training=False).make(0, 0)
    assert batch.images.shape == (3, 1, 10, 8) and batch.targets[0].shape == (3, 1, 10, 8)
    stored = cases[batch.case_ids[0]][0][0]
    windows = np.lib.stride_tricks.sliding_window_view(stored, (1, 10, 8))[..., 0, :, :]
    assert (windows == batch.images[0, 0]).all(axis=(-2, -1)).sum() == 1
    assert source(index, plan=plan).make(0, 0).images.shape == (3, 1, 10, 8)


def test_patches_larger_than_the_case_are_padded(index: Path) -> None:
    batch = source(index, plan=make_plan((24, 24, 24)), training=False).make(0, 0)
    case = make_cases(4, (14, 18, 16))[batch.case_ids[0]]
    assert np.isclose(np.abs(batch.images[0]).sum(), np.abs(case[0]).sum(), rtol=1e-4)
    assert batch.targets[0][0].sum() == case[1].sum() and batch.targets[0].min() == 0


def test_regions_and_ignore_become_channels(tmp_path: Path) -> None:
    labels = Labels((("background", 0), ("whole", (1, 2)), ("core", 2), ("ignore", 3)), (1, 2))
    cases = make_cases(2, (14, 18, 16))
    for _, label in cases.values():
        label[:, :3] = 3
    index = write_store(tmp_path, cases, [(1, 2), 2, labels.annotated_key])
    batch = source(index, plan=make_plan((6, 8, 8), labels), case_ids=["case_0"], training=False).make(0, 0)
    assert batch.targets[0].dtype == bool and [t.shape[1:] for t in batch.targets] == [(3, 6, 8, 8), (3, 3, 4, 4)]
    image, label = (np.pad(array, 8) for array in (cases["case_0"][0][0], cases["case_0"][1]))  # patches may stick out
    for sample in range(3):
        shown = label[where(image, batch.images[sample, 0])]
        for channel, values in enumerate(((1, 2), (2,), (3,))):
            np.testing.assert_array_equal(batch.targets[0][sample, channel], np.isin(shown, values))


def write_maps(folder: Path, maps: dict[str, np.ndarray], configuration: str = "3d_cascade_fullres") -> Path:
    folder.mkdir(exist_ok=True)
    entries = {}
    for case_id, label_zyx in maps.items():
        np.save(folder / f"{case_id}.npy", label_zyx)
        entries[case_id] = {"file": f"{case_id}.npy", "digest": file_digest(folder / f"{case_id}.npy")}
    write_json(folder / "next_stage.json", {"version": 1, "target": {configuration: entries}})
    return folder / "next_stage.json"


def test_cascade_appends_the_previous_stages_labels(index: Path, tmp_path: Path) -> None:
    cases = make_cases(4, (14, 18, 16))
    next_stage = write_maps(tmp_path, {case_id: label.astype(np.uint8) for case_id, (_, label) in cases.items()})
    plan = make_plan(PATCH, configuration="3d_cascade_fullres", previous_stage="3d_lowres")
    batch = source(index, plan=plan, training=False, next_stage=next_stage).make(0, 0)
    assert batch.images.shape[1] == 3  # the image, label 1, label 2
    for value in (1, 2):
        np.testing.assert_array_equal(batch.images[:, value], batch.targets[0][:, 0] == value)
    augmented = source(index, plan=plan, next_stage=next_stage)
    assert all(set(np.unique(augmented.make(0, step).images[:, 1:])) <= {0, 1} for step in range(8))


def test_what_a_cascade_lacks_is_named(index: Path, tmp_path: Path) -> None:
    plan = make_plan(PATCH, configuration="3d_cascade_fullres", previous_stage="3d_lowres")
    with pytest.raises(TrainingError, match="3d_lowres are missing"):
        source(index, plan=plan)
    missing = write_maps(tmp_path / "a", {"other": np.zeros((14, 18, 16), np.uint8)})
    with pytest.raises(DatasetError, match=r"case case_\d: not in .*next_stage.json"):
        source(index, plan=plan, next_stage=missing).make(0, 0)
    wrong = write_maps(tmp_path / "b", {f"case_{n}": np.zeros((14, 18, 2), np.uint8) for n in range(4)})
    with pytest.raises(DamagedFileError, match=r"case case_\d: uint8 of shape \(14, 18, 2\)"):
        source(index, plan=plan, next_stage=wrong).make(0, 0)
    (tmp_path / "b" / "case_0.npy").write_bytes(b"not an array")
    with pytest.raises(DamagedFileError, match="case_0: not a readable array"):
        source(index, plan=plan, next_stage=wrong, case_ids=["case_0"]).make(0, 0)
    other = write_maps(tmp_path / "c", {}, "3d_other")
    with pytest.raises(DatasetError, match="no label maps for 3d_cascade_fullres"):
        source(index, plan=plan, next_stage=other).make(0, 0)
    with pytest.raises(TrainingError, match="no cases"):
        source(index, case_ids=[])


def test_presets(index: Path) -> None:
    with pytest.raises(SettingsError, match="did you mean default"):
        source(index, settings=replace(SETTINGS, augmentation="defualt")).make(0, 0)
    plain = source(index, settings=replace(SETTINGS, augmentation="none"))
    assert np.isin(plain.make(0, 0).images[0], make_cases(4, (14, 18, 16))[plain.make(0, 0).case_ids[0]][0]).all()
    assert mirror_axes(make_plan(PATCH), SETTINGS) == (0, 1, 2)
    assert mirror_axes(make_plan((8, 8)), SETTINGS) == (0, 1)
    assert mirror_axes(make_plan(PATCH), replace(SETTINGS, mirroring=False)) == ()
    assert mirror_axes(make_plan(PATCH), replace(SETTINGS, augmentation="none")) == ()
    assert set(AUGMENTATIONS.names()) >= {"default", "none"}


def test_a_plugins_preset_works_in_worker_processes(index: Path, tmp_path: Path) -> None:
    plugin = tmp_path / "my_augmentation.py"
    plugin.write_text(
        "from segwright.training.augmentation.brightness import RandomBrightness\n"
        "from segwright.training.augmentation.pipeline import AUGMENTATIONS, Augmentation\n"
        "@AUGMENTATIONS.register('always_double')\n"
        "def always_double(facts):\n"
        "    return Augmentation(intensity=(RandomBrightness(1.0, (2.0, 2.0)),))\n"
    )
    doubled = source(index, settings=replace(SETTINGS, augmentation="always_double"), plugins=[plugin])
    plain = source(index, settings=replace(SETTINGS, augmentation="none"))
    with BatchLoader(doubled, 1) as loader:
        batch = next(loader.epoch(0, 1))
    np.testing.assert_array_equal(batch.images, 2 * plain.make(0, 0).images)


def test_v2_order_and_mask(index: Path) -> None:
    """Outside the mask a masked channel is 0 after all transforms; label -1 becomes 0."""
    kinds = [type(t).__name__ for t in default_augmentation(PatchFacts(PATCH, 0.5, False, (0, 1, 2))).intensity]
    assert kinds == [
        "RandomGaussianNoise", "RandomGaussianBlur", "RandomBrightness", "RandomContrast", "RandomLowResolution",
        "RandomGamma", "RandomGamma",
    ]  # fmt: skip
    from segwright.training.augmentation.pipeline import build_pipeline

    plan = make_plan((6, 6, 6), num_channels=2, use_mask_for_norm=(True, False))
    pipeline = build_pipeline(plan, SETTINGS, training=True)
    label = np.full((1, *pipeline.loader_patch_size), -1, np.int8)
    window = ArrayWindow(np.ones((2, *pipeline.loader_patch_size), np.float32), label)
    for seed in range(10):
        image, targets = pipeline(window, np.random.default_rng(seed))
        assert (image[0] == 0).all() and (image[1] != 0).any() and (targets[0] == 0).all()
    for settings, training in ((SETTINGS, False), (replace(SETTINGS, augmentation="none"), True)):
        assert build_pipeline(plan, settings, training).use_mask_for_norm == ()
    assert Augmentation().flip_axes == () and LABELS.ignore_label is None
