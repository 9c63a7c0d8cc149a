"""Every drawn twin computed by torch gives what the loader's processes compute: images to 1e-5, labels to near ties."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from tests.unit.logical_gpu import GPU, logical_gpu
from tests.unit.training.augmentation.golden import within_standard_errors
from tests.unit.training.stored import make_plan

from segwright.core.errors import SettingsError
from segwright.core.labels import Labels
from segwright.core.settings import TrainingSettings
from segwright.training.augmentation.brightness import Brightness
from segwright.training.augmentation.contrast import Contrast
from segwright.training.augmentation.gamma import Gamma
from segwright.training.augmentation.gaussian_blur import GaussianBlur
from segwright.training.augmentation.gaussian_noise import GaussianNoise, RandomGaussianNoise
from segwright.training.augmentation.low_resolution import LowResolution
from segwright.training.augmentation.mirror import Mirror
from segwright.training.augmentation.on_device import spatial
from segwright.training.augmentation.on_device.batches import augment
from segwright.training.augmentation.on_device.dispatch import device_version, on_device, require_device_versions
from segwright.training.augmentation.pipeline import Augmentation, SamplePipeline, build_pipeline
from segwright.training.augmentation.spatial import ArrayWindow, RandomSpatial, Spatial, Window, WindowPart
from segwright.training.parts import DrawnSample

CPU = torch.device("cpu")
SETTINGS = TrainingSettings(schedule="smoke").resolved()
NEAR_TIE = 1.0  # of 1000: scores so near are one step of half precision apart, where coordinates' last bits decide

pytestmark = pytest.mark.usefixtures("one_thread")


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32)


def blobs(shape: tuple[int, ...], values: int, seed: int = 0) -> np.ndarray:
    """int16 labels 0 .. values - 1 in patches of a few voxels, and -1 in a corner."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, values, [-(-edge // 4) for edge in shape]).astype(np.int16)
    labels = np.kron(coarse, np.ones((4,) * len(shape), np.int16))[tuple(slice(edge) for edge in shape)]
    labels[tuple(slice(edge // 3) for edge in shape)] = -1
    return labels[None]


CHANNEL_TWINS = {
    "blur": GaussianBlur((None, (0.55, 0.8, 0.97), (1.0, 0.5, 0.7))),
    "brightness": Brightness((0.8, 1.2, 1.0)),
    "contrast": Contrast((0.8, 1.25, 1.1)),
    "low resolution": LowResolution(((0.5,) * 3, None, (0.77,) * 3)),
    "low resolution in plane": LowResolution((None, (1.0, 0.6, 0.6), (1.0, 0.95, 0.95))),
    "gamma": Gamma((0.7, 1.5, 1.1), inverted=False),
    "gamma of the negative": Gamma((0.8, 1.4, 1.0), inverted=True),
}


def in_two_dimensions(twin: Any) -> Any:
    for name in ("sigmas", "scales"):
        if hasattr(twin, name):
            return replace(twin, **{name: tuple(axes if axes is None else axes[1:] for axes in getattr(twin, name))})
    return twin


@pytest.mark.parametrize("shape", [(21, 18, 24), (1, 5, 30), (40, 33)], ids=["3-D", "thin", "2-D"])
@pytest.mark.parametrize("name", CHANNEL_TWINS)
def test_channel_twins(name: str, shape: tuple[int, ...]) -> None:
    twin = CHANNEL_TWINS[name] if len(shape) == 3 else in_two_dimensions(CHANNEL_TWINS[name])
    image = 3 * noise(3, *shape) + 1
    expected, tensor = twin(image), torch.from_numpy(image.copy())
    result = on_device(twin, tensor)
    assert result.dtype == torch.float32 and np.abs(expected - image).max() > 0.05
    np.testing.assert_allclose(result.numpy(), expected, atol=1e-5)
    np.testing.assert_array_equal(tensor.numpy(), image)  # the input is left alone


def test_constant_channels_stay_finite() -> None:
    flat = torch.full((1, 3, 3, 3), 2.0)
    for twin in (Gamma((1.3,), True), Contrast((1.2,)), LowResolution(((0.5,) * 3,)), GaussianBlur(((1.0,) * 3,))):
        torch.testing.assert_close(on_device(twin, flat), flat)


def test_noise_has_the_drawn_deviation_and_follows_its_seed() -> None:
    image = torch.from_numpy(noise(2, 40, 40, 40))
    added = (on_device(GaussianNoise(0.07, 5), image) - image).numpy()
    assert within_standard_errors(added.ravel(), 0, 0.07, 3)
    assert within_standard_errors(added.ravel() ** 2, 0.07**2, np.sqrt(2) * 0.07**2, 3)
    assert within_standard_errors(added.ravel() ** 4, 3 * 0.07**4, np.sqrt(96) * 0.07**4, 3)
    assert within_standard_errors((added[0] * added[1]).ravel(), 0, 0.07**2, 3)  # channels are independent
    again = on_device(GaussianNoise(0.07, 5), image) - image
    np.testing.assert_array_equal(again.numpy(), added)
    assert (
        abs(np.corrcoef((on_device(GaussianNoise(0.07, 6), image) - image).numpy().ravel(), added.ravel())[0, 1]) < 0.01
    )


def test_mirror() -> None:
    image, labels = noise(2, 4, 5, 6), blobs((4, 5, 6), 3)
    for axes in ((), (1,), (0, 2)):
        expected = Mirror(axes)(image, labels)
        result = on_device(Mirror(axes), torch.from_numpy(image), torch.from_numpy(labels))
        for got, wanted in zip(result, expected, strict=True):
            np.testing.assert_array_equal(got.numpy(), wanted)


@dataclass(frozen=True)
class Turn:
    """A spatial twin and the window it is applied to."""

    twin: Spatial
    window: tuple[int, ...]
    labels: int = 5


TURNS = {
    "turned": Turn(Spatial((40, 36, 32), (0.4, -0.3, 0.5)), (62, 58, 50)),
    "turned and zoomed out, beyond the window": Turn(Spatial((30, 30, 30), (0.5, 0.5, 0.5), 1.4), (40, 33, 36)),
    "zoomed in": Turn(Spatial((30, 28, 26), (), 0.713), (50, 44, 40)),
    "points half-way between voxels": Turn(Spatial((9, 9, 9), (), 1.0 + 2**-40), (16, 16, 16)),
    "60 labels": Turn(Spatial((40, 40, 40), (0.2, 0.1, -0.4), 0.9), (60, 60, 60), 60),
    "in the plane": Turn(Spatial((7, 64, 60), (2.3,), 1.2, in_plane=True), (7, 100, 98)),
    "2-D": Turn(Spatial((128, 120), (-1.1,), 0.83), (190, 190), 20),
    "wide": Turn(Spatial((8, 300, 200), (0.3, 0.2, 0.1), 1.1), (120, 440, 350)),
    "copy": Turn(Spatial((10, 8, 9)), (15, 14, 13)),
}


@pytest.mark.parametrize("small_blocks", [False, True], ids=["one block", "blocks"])
@pytest.mark.parametrize("name", TURNS)
def test_turning_and_zooming(name: str, small_blocks: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if small_blocks:
        monkeypatch.setattr(spatial, "_BLOCK_POINTS", 5000)
    turn = TURNS[name]
    part = turn.twin.part(turn.window)
    image, labels = noise(2, *part.edges), blobs(part.edges, turn.labels)
    expected_image, expected_labels = part(image, labels)
    got_image, got_labels = on_device(part, torch.from_numpy(image), torch.from_numpy(labels))
    assert got_labels.dtype == torch.int16 and got_image.dtype == torch.float32
    np.testing.assert_allclose(got_image.numpy(), expected_image, atol=1e-5)
    different = got_labels.numpy() != expected_labels
    assert different.mean() < 1e-4
    if different.any():
        indicators = np.concatenate([labels == value for value in range(-1, turn.labels)]).astype(np.float32)
        scores = 1000 * part(indicators, labels)[0]
        scores[0] = 1000 - scores[1:].sum(axis=0)  # everything around is -1
        at = np.nonzero(different[0])
        chosen = [scores[(1 + maps[0][at].astype(np.intp), *at)] for maps in (got_labels.numpy(), expected_labels)]
        assert (np.abs(chosen[0] - chosen[1]) <= NEAR_TIE).all()


def test_scores_are_equal_in_half_precision() -> None:
    """Label 2, at two corners, scores 444.45 and the nearest voxel's label 444.43: as in v2 the nearest wins."""
    labels = np.array([[[1, 2], [2, 3]]], np.int16)
    for beyond, winner in ((1e-5, 1), (1e-3, 2)):
        part = WindowPart((0, 0), (2, 2), (1, 1), np.eye(2), (1 / 3 + beyond,) * 2)
        image = torch.from_numpy(noise(1, 2, 2))
        assert part(image.numpy(), labels)[1].item() == winner
        assert on_device(part, image, torch.from_numpy(labels))[1].item() == winner


REGIONS = Labels.from_json(
    {"labels": {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}, "regions_class_order": [1, 2]}
)
PLANS = {
    "3-D": make_plan((16, 20, 16), num_channels=2, use_mask_for_norm=(True, False)),
    "in the plane": make_plan((4, 24, 20), num_channels=2, use_mask_for_norm=(False, False)),
    "2-D": make_plan((40, 36), num_channels=2, use_mask_for_norm=(True, True), configuration="2d"),
    "regions and ignore label": make_plan((16, 20, 16), REGIONS, num_channels=2, use_mask_for_norm=(False, True)),
}


def window_of(pipeline: SamplePipeline, seed: int = 0) -> ArrayWindow:
    """Blobs of labels 0 to 3 and -1, and an image that shows them."""
    labels = blobs(pipeline.loader_patch_size, 4, seed)
    return ArrayWindow(noise(2, *labels.shape[1:]) + labels.astype(np.float32), labels)


def drawn(pipeline: SamplePipeline, seed: int) -> DrawnSample:
    window = window_of(pipeline)
    draw = pipeline.draw(np.random.default_rng(seed), 2)
    part = draw.spatial.part(window.shape)
    return DrawnSample(*window.read(part.lower, part.upper), part, draw)


def without_noise(pipeline: SamplePipeline) -> SamplePipeline:
    default = pipeline.augmentation
    kept = tuple(transform for transform in default.intensity if not isinstance(transform, RandomGaussianNoise))
    return replace(pipeline, augmentation=replace(default, intensity=kept))


@pytest.mark.parametrize("name", PLANS)
def test_whole_samples(name: str) -> None:
    pipeline = without_noise(build_pipeline(PLANS[name], SETTINGS, training=True))
    voxels = far_images = far_labels = 0
    fired: set[type] = set()
    for seed in range(60):
        sample = drawn(pipeline, seed)
        image, targets = augment(sample, pipeline, CPU)
        expected_image, expected_targets = pipeline.apply(sample.draw, window_of(pipeline))
        fired |= {type(twin) for twin in sample.draw.intensity}
        far_images += int((np.abs(image.numpy() - expected_image) > 1e-4).sum())
        voxels += expected_image.size
        assert [target.shape for target in targets] == [target.shape for target in expected_targets]
        for target, expected in zip(targets, expected_targets, strict=True):
            assert target.numpy().dtype == (bool if pipeline.regions else np.int16)
            far_labels += int((target.numpy() != expected).sum())
    assert fired == {GaussianBlur, Brightness, Contrast, LowResolution, Gamma}
    assert far_images / voxels < 1e-4 and far_labels / voxels < 1e-4


def test_noise_of_whole_samples_has_the_distribution_of_the_cpus() -> None:
    """Each sample with its noise, less the same sample without, on both sides."""
    pipeline = build_pipeline(PLANS["3-D"], SETTINGS, training=True)
    pipeline = replace(pipeline, augmentation=Augmentation(pipeline.augmentation.spatial, (RandomGaussianNoise(1.0),)))
    ratios: list[float] = []
    for seed in range(60):
        sample = drawn(pipeline, seed)
        (twin,) = sample.draw.intensity
        assert isinstance(twin, GaussianNoise)
        quiet = replace(sample, draw=replace(sample.draw, intensity=()))
        added = (augment(sample, pipeline, CPU)[0] - augment(quiet, pipeline, CPU)[0])[1].numpy()  # not masked
        loud, calm = (pipeline.apply(draw, window_of(pipeline))[0] for draw in (sample.draw, quiet.draw))
        assert within_standard_errors(added.ravel(), 0, twin.sigma, 4)
        ratios.append(float(np.log(added.std() / (loud - calm)[1].std())))
    deviation = np.sqrt(1 / added.size)  # of the logarithm of the ratio of two standard deviations
    assert within_standard_errors(np.array(ratios), 0, deviation, 3)


@pytest.mark.parametrize("name", PLANS)
def test_nothing_stays_behind_and_nobody_waits(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU all operations run there, on two copies a sample, and none needs an answer."""
    pipeline = build_pipeline(PLANS[name], SETTINGS, training=True)
    real, expected = torch.Generator, [augment(drawn(pipeline, seed), pipeline, CPU) for seed in range(40)]
    monkeypatch.setattr(torch, "Generator", lambda device: real() if device == GPU else pytest.fail(f"on {device}"))
    for seed, (image, targets) in enumerate(expected):
        with logical_gpu(monkeypatch) as gpu:
            found, found_targets = augment(drawn(pipeline, seed), pipeline, GPU)
            assert gpu.holds(found) and all(map(gpu.holds, found_targets)) and gpu.pinned == 2
            assert not gpu.operations & {"aten::_local_scalar_dense", "aten::nonzero", "aten::equal", "aten::unique"}
            on_cpu = [tensor.cpu() for tensor in (found, *found_targets)]
        for got, wanted in zip(on_cpu, (image, *targets), strict=True):
            assert torch.equal(got, wanted)


class Softer(Gamma):
    """A plugin's twin that is no gamma correction."""

    def __call__(self, image: np.ndarray) -> np.ndarray:
        return image * 0.5


@dataclass(frozen=True)
class Always:
    twin: Any

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
        return self.twin


class Bent(Spatial):
    """A plugin's twin that samples in a way of its own."""

    def sample(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        return tuple(array[:, ::-1] for array in super().sample(window))  # type: ignore[return-value]


class RandomBent(RandomSpatial):
    def draw(self, rng: np.random.Generator) -> Spatial:
        return Bent(self.patch_size)


def test_a_twin_without_a_version_for_tensors_is_refused_before_training() -> None:
    pipeline = build_pipeline(PLANS["3-D"], SETTINGS, training=True)
    require_device_versions(pipeline, 2)
    unknown = (Always(Softer((1.0, 1.0), False)), Always(np.negative))
    mine = replace(pipeline, augmentation=Augmentation(intensity=unknown))
    message = r"augment_on: device, but of the augmentation Softer, negative can only.* register .*augment_on: workers"
    with pytest.raises(SettingsError, match=message):
        require_device_versions(mine, 2)
    with pytest.raises(SettingsError, match=r"of the augmentation Softer can only"):
        on_device(Softer((1.0,), False), torch.zeros(1, 2, 2))
    bent = replace(pipeline, augmentation=Augmentation(spatial=RandomBent((16, 20, 16), 0.1)))
    with pytest.raises(SettingsError, match=r"of the augmentation Bent can only"):
        require_device_versions(bent, 2)
    rare = RandomSpatial((16, 20, 16), 0.1, rotation_probability=0.0, scaling_probability=0.0)
    require_device_versions(replace(pipeline, augmentation=Augmentation(spatial=rare)), 2)


def test_a_plugin_registers_its_twin() -> None:
    @dataclass(frozen=True)
    class Invert:
        def __call__(self, image: np.ndarray) -> np.ndarray:
            return -image

    device_version.register(Invert, lambda twin, image: -image)
    pipeline = build_pipeline(PLANS["2-D"], SETTINGS, training=True)
    pipeline = replace(pipeline, augmentation=Augmentation(intensity=(Always(Invert()),)), loader_patch_size=(40, 36))
    require_device_versions(pipeline, 2)
    sample = drawn(pipeline, 0)
    image, _ = augment(sample, pipeline, CPU)
    np.testing.assert_array_equal(image.numpy(), pipeline.apply(sample.draw, window_of(pipeline))[0])


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no NVIDIA GPU")


@needs_gpu
@pytest.mark.parametrize("name", PLANS)
def test_a_real_gpu_augments_as_the_cpu_does(name: str) -> None:
    pipeline = without_noise(build_pipeline(PLANS[name], SETTINGS, training=True))
    device, voxels, far = torch.device("cuda"), 0, 0
    for seed in range(60):
        sample = drawn(pipeline, seed)
        results = [
            (image, *targets) for image, targets in (augment(sample, pipeline, where) for where in (device, CPU))
        ]
        for found, expected in zip(*results, strict=True):
            far += int(((found.cpu().float() - expected.float()).abs() > 1e-4).sum())
            voxels += expected.numel()
    assert far / voxels < 1e-4
    image = torch.zeros(2, 40, 40, 40, device=device)
    added = on_device(GaussianNoise(0.07, 5), image).cpu().numpy()
    assert within_standard_errors(added.ravel(), 0, 0.07, 3)
    assert within_standard_errors(added.ravel() ** 2, 0.07**2, np.sqrt(2) * 0.07**2, 3)
    np.testing.assert_array_equal(on_device(GaussianNoise(0.07, 5), image).cpu().numpy(), added)
