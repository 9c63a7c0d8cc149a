"""The peer's random transforms and pipelines as rows of numbers like those of tests/parity/draws.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from tests.parity.draws import (
    DRAW_PATCHES,
    FOUR_VOXELS,
    NAN,
    SHAPE,
    Moments,
    PipelineCase,
    field_numbers,
    matrix_numbers,
    removed_numbers,
    sample_numbers,
)

from benchmarks.peer.peer_twins import removal, tensor
from segwright.training.augmentation.binary_operator import OPERATORS
from segwright.training.augmentation.ranges import spatial_ranges


def peer_moments(draw: Callable[[], list[float]], count: int, seed: int) -> Moments:
    """Of so many draws, from the peer's generators (numpy's and torch's own) set to a seed."""
    np.random.seed(seed)
    torch.manual_seed(seed)
    return Moments.of([draw() for _ in range(count)])


def default_transforms(
    patch: tuple[int, ...], mask: Any = None, previous: Any = None, regions: Any = None, scales: Any = None
) -> Any:
    """The peer's own list of transforms with its defaults."""
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    ranges = spatial_ranges(patch)
    angle = ranges.rotation_rad
    return nnUNetTrainer.get_training_transforms(
        patch, (-angle, angle), scales, ranges.flip_axes, ranges.in_plane, list(mask) if mask else None,
        is_cascaded=bool(previous), foreground_labels=previous, regions=regions, ignore_label=None,
    )  # fmt: skip


def peer_pipeline(case: PipelineCase) -> Callable[[], list[float]]:
    scales = 1 / np.cumprod(np.array(case.strides, float), axis=0)
    transforms = default_transforms(
        case.patch, case.mask, case.previous, case.regions, [list(scale) for scale in scales[:-1]]
    )
    image, labels = case.inputs

    def sample() -> list[float]:
        made = transforms(image=tensor(image), segmentation=tensor(labels))
        return sample_numbers(made["image"].numpy(), [head.numpy() for head in made["segmentation"]])

    return sample


def peer_draws() -> dict[str, Callable[[], list[float]]]:
    """The same names and numbers as :func:`tests.parity.draws.draws`, from the peer's random generators."""
    image, flat = torch.zeros(SHAPE), torch.zeros((3, 6, 6))
    everything = default_transforms((12, 12, 12), previous=(1, 2, 3)).transforms
    inner = {
        name: [t for t in everything if hasattr(t, "transform") and type(t.transform).__name__.startswith(name)]
        for name in ("GaussianNoise", "GaussianBlur", "MultiplicativeBrightness", "Contrast", "Simulate", "Gamma",
                     "ApplyRandomBinary", "RemoveRandom")
    }  # fmt: skip
    thin = [
        t
        for t in default_transforms((4, 16, 16)).transforms
        if "SimulateLow" in type(getattr(t, "transform", 0)).__name__
    ]
    mirror = next(t for t in everything if type(t).__name__ == "MirrorTransform")
    two = torch.ones((2, 4, 4, 4)) * 0

    def fired(wrapper: Any, data: torch.Tensor) -> dict[str, Any] | None:
        if not wrapper.get_parameters()["apply_transform"]:
            return None
        return wrapper.transform.get_parameters(image=data)

    def noise() -> list[float]:
        found = fired(inner["GaussianNoise"][0], image)
        return [0, NAN] if found is None else [1, found["sigmas"]]

    def noise_field() -> list[float]:
        transform = inner["GaussianNoise"][0].transform
        parameters = {**transform.get_parameters(image=two), "sigmas": 1.0}
        return field_numbers(transform._apply_to_image(two.clone(), **parameters).numpy())

    def blur() -> list[float]:
        found = fired(inner["GaussianBlur"][0], image)
        if found is None:
            return [0, *[NAN] * 5]
        return [1, *(bool(chosen) for chosen in found["apply_to_channel"]), *(found["sigmas"] or [[NAN] * 3])[0]]

    def factors(wrapper: Any, key: str) -> list[float]:
        found = fired(wrapper, image)
        if found is None:
            return [0, NAN, NAN, NAN]
        first, second = (float(value) for value in found[key])
        return [1, first, second, first < 1]

    def low_resolution(wrapper: Any) -> list[float]:
        found = fired(wrapper, image)
        if found is None:
            return [0, *[NAN] * 4]
        chosen = [channel in found["apply_to_channel"].tolist() for channel in range(2)]
        return [1, *chosen, *(found["scales"][0][:2].tolist() if any(chosen) else (NAN, NAN))]

    def operators() -> list[float]:
        found = fired(inner["ApplyRandomBinary"][0], flat)
        if found is None or not found["apply_to_channels"]:
            return [found is not None, NAN if found is None else 0, *[NAN] * 6]
        name = found["operators"][0].__name__
        shown = [name == f"binary_{operator}_torch" for operator in OPERATORS]
        return [1, len(found["operators"]), found["apply_to_channels"][0] + 3, *shown, found["strel_size"][0]]

    def removals() -> list[float]:
        found = fired(inner["RemoveRandom"][0], flat)
        if found is None or not found["apply_to_channels"]:
            return [found is not None, NAN if found is None else 0, NAN]
        return [1, len(found["apply_to_channels"]), found["apply_to_channels"][0] + 3]

    def removed() -> list[float]:
        left = removal(1, 1.0)(image=tensor(FOUR_VOXELS))["image"].numpy()
        return removed_numbers(FOUR_VOXELS - left)

    inverted, plain = inner["Gamma"]
    assert inverted.transform.p_invert_image == 1 and plain.transform.p_invert_image == 0
    found: dict[str, Callable[[], list[float]]] = {
        "noise": noise,
        "noise field": noise_field,
        "blur": blur,
        "brightness": lambda: factors(inner["MultiplicativeBrightness"][0], "multipliers"),
        "contrast": lambda: factors(inner["Contrast"][0], "multipliers"),
        "low resolution": lambda: low_resolution(inner["Simulate"][0]),
        "low resolution in plane": lambda: low_resolution(thin[0]),
        "gamma": lambda: factors(plain, "gamma"),
        "gamma inverted": lambda: factors(inverted, "gamma"),
        "mirror": lambda: [axis in mirror.get_parameters()["axes"] for axis in range(3)],
        "binary operators": operators,
        "component removal": removals,
        "removed component": removed,
    }
    for name, patch in DRAW_PATCHES.items():
        found[f"spatial {name}"] = spatial_draw(patch)
    return found


def spatial_draw(patch: tuple[int, ...]) -> Callable[[], list[float]]:
    transforms = default_transforms(patch).transforms
    transform = next(t for t in transforms if type(t).__name__ == "SpatialTransform")
    data = torch.zeros((1, *(4,) * len(transform.patch_size)))

    def draw() -> list[float]:
        matrix = transform.get_parameters(image=data)["affine"]
        return matrix_numbers(np.eye(len(transform.patch_size)) if matrix is None else matrix)

    return draw
