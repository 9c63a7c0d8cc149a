"""All transforms of one sample, in v2's order, and the presets a training chooses from by name (method 6.2, 6.3).

A preset is a function from :class:`PatchFacts` to :class:`Augmentation`, registered in ``AUGMENTATIONS``. A plugin adds
one, most simply by changing the default::

    @AUGMENTATIONS.register("no_gamma")
    def no_gamma(facts: PatchFacts) -> Augmentation:
        default = default_augmentation(facts)
        return replace(default, intensity=tuple(t for t in default.intensity if not isinstance(t, RandomGamma)))
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np

from segwright.core.labels import LabelKey
from segwright.core.registry import Registry
from segwright.core.settings import TrainingSettings
from segwright.core.slices import TrainPlan
from segwright.training.augmentation.binary_operator import RandomBinaryOperator
from segwright.training.augmentation.brightness import RandomBrightness
from segwright.training.augmentation.component_removal import RandomComponentRemoval
from segwright.training.augmentation.contrast import RandomContrast
from segwright.training.augmentation.deep_supervision import supervision_shapes, supervision_targets
from segwright.training.augmentation.gamma import RandomGamma
from segwright.training.augmentation.gaussian_blur import RandomGaussianBlur
from segwright.training.augmentation.gaussian_noise import RandomGaussianNoise
from segwright.training.augmentation.label_channels import one_hot, region_channels, target_regions
from segwright.training.augmentation.low_resolution import RandomLowResolution
from segwright.training.augmentation.mask import mask_outside, outside_to_background
from segwright.training.augmentation.mirror import Mirror, RandomMirror
from segwright.training.augmentation.ranges import loader_patch_size, spatial_ranges
from segwright.training.augmentation.spatial import RandomSpatial, Spatial, Window

ChannelTwin: TypeAlias = Callable[[np.ndarray], np.ndarray]
"""A drawn, deterministic transform of image channels (or one-hot channels)."""


class ChannelTransform(Protocol):
    """A random transform of image channels (or one-hot channels) that keeps their shape."""

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> ChannelTwin | None:
        """The deterministic twin with drawn parameters, or None when the transform does not fire."""


@dataclass(frozen=True)
class PatchFacts:
    """What a preset is made for: the network's patch, what follows from it, and whether flipping is allowed."""

    patch_size: tuple[int, ...]
    rotation_rad: float
    in_plane: bool
    flip_axes: tuple[int, ...]


@dataclass(frozen=True)
class Augmentation:
    """What is done to a training sample.

    Attributes:
        spatial: None copies the centre of the window.
        intensity: run in order on the image, before mirroring.
        mirror: None flips nothing.
        previous_stage: run in order on the one-hot channels of a cascade.
        masks: channels that are normalised within the body are 0 outside it afterwards.
    """

    spatial: RandomSpatial | None = None
    intensity: tuple[ChannelTransform, ...] = ()
    mirror: RandomMirror | None = None
    previous_stage: tuple[ChannelTransform, ...] = ()
    masks: bool = True

    @property
    def flip_axes(self) -> tuple[int, ...]:
        """Spatial axes that are flipped in training, and so may be at prediction."""
        return () if self.mirror is None else self.mirror.allowed_axes


AUGMENTATIONS: Registry[Callable[[PatchFacts], Augmentation]] = Registry("augmentation")


@AUGMENTATIONS.register("default")
def default_augmentation(facts: PatchFacts) -> Augmentation:
    """nnU-Net v2's defaults (method 6.2, 6.3)."""
    return Augmentation(
        spatial=RandomSpatial(facts.patch_size, facts.rotation_rad, facts.in_plane),
        intensity=(
            RandomGaussianNoise(),
            RandomGaussianBlur(),
            RandomBrightness(),
            RandomContrast(),
            RandomLowResolution(keep_axis_0=facts.in_plane),
            RandomGamma(0.1, inverted=True),
            RandomGamma(0.3, inverted=False),
        ),
        mirror=RandomMirror(facts.flip_axes) if facts.flip_axes else None,
        previous_stage=(RandomBinaryOperator(), RandomComponentRemoval()),
    )


@AUGMENTATIONS.register("none")
def no_augmentation(facts: PatchFacts) -> Augmentation:
    """Nothing is changed nor masked, and the loader's patch is the network's (v2's trainer NoDA, method 14.5)."""
    return Augmentation(masks=False)


@dataclass(frozen=True)
class SampleDraw:
    """All random decisions about one sample: the deterministic twins that fired, in order (see :class:`Augmentation`).

    It knows nothing of the image, so it can be drawn before anything is read and applied elsewhere.
    """

    spatial: Spatial
    intensity: tuple[ChannelTwin, ...]
    mirror: Mirror
    previous_stage: tuple[ChannelTwin, ...]


@dataclass(frozen=True)
class SamplePipeline:
    """From a window of a case to a sample of a batch.

    Attributes:
        patch_size: the network's patch.
        loader_patch_size: edge lengths of the window a sample is taken from.
        augmentation: what is done to the sample.
        use_mask_for_norm: channels set to 0 outside the body after augmentation; empty: none.
        previous_stage_values: label values that become one-hot input channels (cascade), else empty.
        regions: target channels of region training, ignore label last; None: the target is the label map.
        target_shapes: spatial shape of each target, high to low resolution.
    """

    patch_size: tuple[int, ...]
    loader_patch_size: tuple[int, ...]
    augmentation: Augmentation
    use_mask_for_norm: tuple[bool, ...]
    previous_stage_values: tuple[int, ...]
    regions: tuple[LabelKey, ...] | None
    target_shapes: tuple[tuple[int, ...], ...]

    def __call__(self, window: Window, rng: np.random.Generator) -> tuple[np.ndarray, list[np.ndarray]]:
        """Draw, read and transform one sample; returns what :meth:`apply` does."""
        return self.apply(self.draw(rng, window.channels), window)

    def draw(self, rng: np.random.Generator, num_channels: int) -> SampleDraw:
        """Everything random about one sample of an image with so many channels."""
        augmentation = self.augmentation
        spatial = augmentation.spatial.draw(rng) if augmentation.spatial is not None else Spatial(self.patch_size)
        intensity = _draw(augmentation.intensity, rng, (num_channels, *self.patch_size))
        mirror = augmentation.mirror.draw(rng) if augmentation.mirror is not None else Mirror(())
        previous_stage: tuple[ChannelTwin, ...] = ()
        if self.previous_stage_values:
            shape = (len(self.previous_stage_values), *self.patch_size)
            previous_stage = _draw(augmentation.previous_stage, rng, shape)
        return SampleDraw(spatial, intensity, mirror, previous_stage)

    def apply(self, draw: SampleDraw, window: Window) -> tuple[np.ndarray, list[np.ndarray]]:
        """Read and transform one sample; only a turned or zoomed patch needs more of the window than itself.

        Returns:
            image (channels + previous stage's labels, *patch) float32 and the targets, each
            (1 or regions, *shape), int16 label values or bool. Arrays may be views with negative strides.
        """
        image, labels = draw.spatial.sample(window)
        for twin in draw.intensity:
            image = twin(image)
        image, labels = draw.mirror(image, labels)
        image = mask_outside(image, labels[0], self.use_mask_for_norm)
        labels = outside_to_background(labels)
        if self.previous_stage_values:
            previous = one_hot(labels[1], self.previous_stage_values)
            for twin in draw.previous_stage:
                previous = twin(previous)
            image = np.concatenate([image, previous])
        target = labels[:1] if self.regions is None else region_channels(labels[0], self.regions)
        return image, supervision_targets(target, self.target_shapes)


def build_pipeline(plan: TrainPlan, settings: TrainingSettings, training: bool) -> SamplePipeline:
    """The pipeline of a configuration; at validation nothing is augmented, nor masked (method 6.2).

    Raises:
        SettingsError: there is no augmentation preset of the configured name.
    """
    augmentation = build_augmentation(plan, settings) if training else Augmentation(masks=False)
    window_edges = plan.patch_size
    if augmentation.spatial is not None:
        window_edges = loader_patch_size(
            plan.patch_size, augmentation.spatial.rotation_rad, augmentation.spatial.in_plane
        )
    return SamplePipeline(
        patch_size=plan.patch_size,
        loader_patch_size=tuple(window_edges),
        augmentation=augmentation,
        use_mask_for_norm=plan.use_mask_for_norm if augmentation.masks else (),
        previous_stage_values=plan.labels.foreground_labels if plan.previous_stage else (),
        regions=target_regions(plan.labels),
        target_shapes=supervision_shapes(plan.patch_size, plan.architecture.strides, settings.deep_supervision),
    )


def build_augmentation(plan: TrainPlan, settings: TrainingSettings) -> Augmentation:
    """The configured preset for this patch; ``mirroring: false`` forbids flipping."""
    ranges = spatial_ranges(plan.patch_size)
    facts = PatchFacts(
        patch_size=plan.patch_size,
        rotation_rad=ranges.rotation_rad,
        in_plane=ranges.in_plane,
        flip_axes=ranges.flip_axes if settings.mirroring else (),
    )
    return AUGMENTATIONS.get(settings.augmentation)(facts)


def mirror_axes(plan: TrainPlan, settings: TrainingSettings) -> tuple[int, ...]:
    """Spatial axes flipped in training; the model remembers them for prediction (method 6.1, 9.4)."""
    return build_augmentation(plan, settings).flip_axes


def _draw(
    transforms: tuple[ChannelTransform, ...], rng: np.random.Generator, shape: tuple[int, ...]
) -> tuple[ChannelTwin, ...]:
    twins = [transform.draw(rng, shape) for transform in transforms]
    return tuple(twin for twin in twins if twin is not None)
