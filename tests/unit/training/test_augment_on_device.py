"""``training.augment_on: device`` in whole trainings on stored cases: the same draws, whoever makes and stops them."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.unit.training.stored import make_cases, make_plan, write_store

from segwright.core.errors import InterruptedForRetry, SettingsError
from segwright.core.files import file_digest, read_json, write_json
from segwright.core.settings import TrainingSettings
from segwright.splits import Fold
from segwright.training.augmentation.on_device.batches import AugmentedBatches, DeviceBatch
from segwright.training.data import open_data
from segwright.training.fold import train_fold
from segwright.training.loader import Batch
from segwright.training.loop import describe
from segwright.training.parts import PartSource
from segwright.training.request import TrainingRequest

PATCH = (8, 12, 8)
SETTINGS = TrainingSettings(schedule="smoke", epochs=2, iterations=2, torch_threads=1, seed=1, augment_on="device")
FOLD = Fold("0", ("case_0", "case_1", "case_2"), ("case_3",))

pytestmark = pytest.mark.usefixtures("no_drawing", "one_thread")


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cases whose labels show in the image."""
    cases = make_cases(4, (14, 18, 16))
    return write_store(
        tmp_path_factory.mktemp("store"), {name: (image + 3 * label, label) for name, (image, label) in cases.items()}
    )


def request(index: Path, output: Path, **changes: Any) -> TrainingRequest:
    plan = make_plan(PATCH, batch_size=2, use_mask_for_norm=(True,))
    return replace(TrainingRequest(plan, SETTINGS, index, FOLD, output), **changes)


def batches(index: Path, workers: int, steps: int, **settings: Any) -> list[Any]:
    wanted = request(index, Path("unused"), workers=workers, settings=replace(SETTINGS, **settings))
    loader = open_data(wanted, wanted.settings.resolved()).training()
    try:
        return list(loader.epoch(0, steps))
    finally:
        loader.close()


def test_batches_are_those_of_the_workers_whatever_their_number(index: Path) -> None:
    expected: list[Batch] = batches(index, 0, 12, augment_on="workers")
    first: list[DeviceBatch] = batches(index, 0, 12)
    noisy = voxels = different = 0
    for batch, wanted in zip(first, expected, strict=True):
        assert batch.case_ids == wanted.case_ids and batch.images.dtype == torch.float32
        for image, wanted_image in zip(batch.images.numpy(), wanted.images, strict=True):
            noisy += np.abs(image - wanted_image).max() > 1e-4
        for target, wanted_target in zip(batch.targets, wanted.targets, strict=True):
            assert target.dtype == torch.int16
            different += int((target.numpy() != wanted_target).sum())
            voxels += wanted_target.size
    assert different / voxels < 1e-4
    assert noisy <= 6  # of 24 samples: noise, which is drawn elsewhere, fires for one in ten
    for workers in (1, 2):
        for batch, same in zip(first, batches(index, workers, 12), strict=True):
            assert batch.case_ids == same.case_ids and torch.equal(batch.images, same.images)
            assert all(map(torch.equal, batch.targets, same.targets))


def test_workers_load_no_torch(index: Path, tmp_path: Path) -> None:
    plugin = tmp_path / "no_torch.py"
    plugin.write_text(
        "import sys\n"
        "from dataclasses import dataclass\n"
        "from segwright.training.augmentation.on_device.dispatch import device_version\n"
        "from segwright.training.augmentation.pipeline import AUGMENTATIONS, Augmentation\n"
        "@dataclass(frozen=True)\n"
        "class Set:\n"
        "    value: float\n"
        "class Tell:\n"
        "    def draw(self, rng, shape):\n"
        "        return Set(float('torch' in sys.modules))\n"
        "@device_version.register(Set)\n"
        "def set_on_device(twin, image):\n"
        "    return image * 0 + twin.value\n"
        "@AUGMENTATIONS.register('tell')\n"
        "def tell(facts):\n"
        "    return Augmentation(intensity=(Tell(),))\n"
    )
    settings = replace(SETTINGS, augmentation="tell")
    for workers, value in ((0, 1.0), (1, 0.0)):
        wanted = request(index, tmp_path, workers=workers, settings=settings, plugins=(plugin,))
        if not workers:
            train_fold(wanted)  # takes the plugin's version
        loader = open_data(wanted, settings.resolved()).training()
        images = next(iter(loader.epoch(0, 1))).images
        loader.close()
        assert images.max() == value


def end_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A time limit strikes when so many batches were augmented."""
    real, made = AugmentedBatches.epoch, [0]

    def epoch(self: AugmentedBatches, epoch: int, steps: int) -> Iterator[DeviceBatch]:
        for batch in real(self, epoch, steps):
            made[0] += 1
            if made[0] == step:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    monkeypatch.setattr(AugmentedBatches, "epoch", epoch)


def test_a_training_learns_and_goes_on_with_the_same_bytes(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(SETTINGS, epochs=3, iterations=20, optimizer="adamw", learning_rate=0.01)
    train_fold(request(index, tmp_path / "straight", settings=settings))
    record = read_json(tmp_path / "straight/training.json")
    assert record["settings"]["augment_on"] == "device" and record["mirror_axes"] == [0, 1, 2]
    with monkeypatch.context() as patches, pytest.raises(InterruptedForRetry, match="1 of 3 epochs saved"):
        end_at(30, patches)
        train_fold(request(index, tmp_path / "stopped", settings=settings, workers=2))
    train_fold(request(index, tmp_path / "stopped", settings=settings, workers=1))
    digests = [file_digest(tmp_path / name / "model.safetensors") for name in ("straight", "stopped")]
    assert digests[0] == digests[1]
    train_fold(request(index, tmp_path / "by workers", settings=replace(settings, augment_on="workers")))
    by_workers = read_json(tmp_path / "by workers/training.json")
    assert "augment_on" not in by_workers["settings"]  # so that older states still fit
    assert record["metrics"]["val_loss"] == pytest.approx(by_workers["metrics"]["val_loss"], abs=0.02)
    assert record["metrics"]["mean_fg_dice"] > 0.4


def test_slots_hold_the_largest_batch(index: Path) -> None:
    plan = make_plan(PATCH, batch_size=2)
    parts = PartSource(index=index, case_ids=FOLD.train, plan=plan, settings=SETTINGS.resolved(), training=True)
    memory = np.empty(parts.slot_bytes, np.uint8)
    used = [parts.fill(0, step, memory).used_bytes for step in range(60)]
    patches = 2 * 8 * 12 * 8 * (4 + 2)
    assert patches in used and patches * 1.5 < max(used) <= parts.slot_bytes


def test_a_batch_on_the_device_is_described(index: Path) -> None:
    (batch,) = batches(index, 0, 1)
    batch.images[1, 0, 0, 0, :2] = torch.nan
    assert f"{batch.case_ids[1]}: 2 of 768 voxels not finite" in describe(batch)


def test_a_plugins_transform_is_refused_before_anything_is_made(index: Path, tmp_path: Path) -> None:
    plugin = tmp_path / "halve.py"
    plugin.write_text(
        "from segwright.training.augmentation.pipeline import AUGMENTATIONS, Augmentation\n"
        "class Half:\n"
        "    def __call__(self, image):\n"
        "        return image / 2\n"
        "class RandomHalf:\n"
        "    def draw(self, rng, shape):\n"
        "        return Half() if rng.random() < 0.05 else None\n"
        "@AUGMENTATIONS.register('halve')\n"
        "def halve(facts):\n"
        "    return Augmentation(intensity=(RandomHalf(),))\n"
    )
    wanted = request(index, tmp_path / "fold_0", settings=replace(SETTINGS, augmentation="halve"), plugins=(plugin,))
    with pytest.raises(SettingsError, match="of the augmentation Half can only be computed by the loader's processes"):
        train_fold(wanted)
    assert not (tmp_path / "fold_0").exists()
    train_fold(replace(wanted, settings=replace(wanted.settings, augment_on="workers")))


def test_a_cascade_is_augmented_by_the_workers(index: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    maps = {}
    for case_id, (_, label_zyx) in make_cases(4, (14, 18, 16)).items():
        np.save(tmp_path / f"{case_id}.npy", label_zyx.astype(np.uint8))
        maps[case_id] = {"file": f"{case_id}.npy", "digest": file_digest(tmp_path / f"{case_id}.npy")}
    write_json(tmp_path / "next_stage.json", {"version": 1, "target": {"3d_cascade_fullres": maps}})
    plan = make_plan(PATCH, batch_size=2, configuration="3d_cascade_fullres", previous_stage="3d_lowres")
    wanted = request(index, tmp_path / "fold_0", plan=plan, next_stage=tmp_path / "next_stage.json")
    caplog.set_level(logging.INFO)
    train_fold(wanted)
    assert caplog.text.count("3d_cascade_fullres: training.augment_on: device is not for cascades") == 1
    train_fold(replace(wanted, output=tmp_path / "by_workers", settings=replace(SETTINGS, augment_on="workers")))
    assert file_digest(tmp_path / "fold_0/model.safetensors") == file_digest(tmp_path / "by_workers/model.safetensors")
