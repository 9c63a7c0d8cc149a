"""Which tensor operations stand for which drawn twin. Imports no torch: plugins and loader processes read it, too."""

from __future__ import annotations

from collections.abc import Iterable
from functools import singledispatch
from typing import Any

import numpy as np

from segwright.core.errors import SettingsError
from segwright.training.augmentation.pipeline import SampleDraw, SamplePipeline
from segwright.training.augmentation.spatial import Spatial

_TRIAL_DRAWS = 2000  # a transform that fires once in 200 samples stays unseen with a chance of 4e-5


@singledispatch
def device_version(twin: Any, *tensors: Any) -> Any:
    """What ``twin(*arrays)`` gives, for float32 tensors (channels, [z,] y, x) on any device, which stay as they are.

    A plugin adds its own twin's with ``@device_version.register(MyTwin)``.
    """
    raise SettingsError(_refusal([twin]))


def on_device(twin: Any, *tensors: Any) -> Any:
    """``twin(*arrays)`` computed by the version that is registered for this very type.

    That of a base class is not taken: the subclass may do something else.

    Raises:
        SettingsError: there is none.
    """
    version = device_version.registry.get(type(twin), device_version.registry[object])
    return version(twin, *tensors)


def require_device_versions(pipeline: SamplePipeline, num_channels: int) -> None:
    """Draw many samples and look for twins that have no version for the device, before anything is trained.

    Raises:
        SettingsError: names them and what to do.
    """
    rng = np.random.default_rng(0)
    missing: dict[str, Any] = {}
    for _ in range(_TRIAL_DRAWS):
        draw = pipeline.draw(rng, num_channels)
        for twin in _twins(pipeline, draw):
            if twin is draw.spatial or type(twin) not in device_version.registry:
                missing.setdefault(_name(twin), twin)
    if missing:
        raise SettingsError(_refusal(missing.values()))


def _twins(pipeline: SamplePipeline, draw: SampleDraw) -> tuple[Any, ...]:
    """What is to be computed: of a spatial twin its part of the window, unless it samples in a way of its own."""
    is_built_in = type(draw.spatial).sample is Spatial.sample
    spatial = draw.spatial.part(pipeline.loader_patch_size) if is_built_in else draw.spatial
    return (spatial, *draw.intensity, draw.mirror)


def _refusal(twins: Iterable[Any]) -> str:
    return (
        f"training.augment_on: device, but of the augmentation {', '.join(map(_name, twins))} can only be computed by "
        "the loader's processes; register a version for tensors (docs/how-to/write-a-plugin.md) or set "
        "training.augment_on: workers"
    )


def _name(twin: Any) -> str:
    return str(getattr(twin, "__qualname__", type(twin).__qualname__))
