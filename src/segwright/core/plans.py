"""Plans: everything the planner decides, in nnU-Net v2's JSON schema (method 3.13, 3.14).

``Plans`` is the file. ``Configuration`` is one configuration with its inheritance resolved. What later stages read of
them stands in ``slices.py``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from segwright.core.architecture import Architecture
from segwright.core.errors import MALFORMED, PlansError, brief

RESAMPLING_FUNCTION = "resample_data_or_seg_to_shape"
STANDARD_CONFIGURATIONS = ("2d", "3d_fullres", "3d_lowres", "3d_cascade_fullres")
"""What nnU-Net v2's planners may make, in the order in which it lists them, which decides ties (method 11.4)."""


@dataclass(frozen=True)
class IntensityStatistics:
    """Foreground intensities of one channel over the dataset (method 2.3)."""

    mean: float
    median: float
    std: float
    min: float
    max: float
    percentile_00_5: float
    percentile_99_5: float

    def to_json(self) -> dict[str, float]:
        """Keys sorted, as in v2's fingerprint and plans."""
        return {name: float(getattr(self, name)) for name in sorted(self.__dataclass_fields__)}

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> IntensityStatistics:
        return IntensityStatistics(**{name: float(record[name]) for name in IntensityStatistics.__dataclass_fields__})


@dataclass(frozen=True)
class Resampling:
    """How one kind of array is resampled (method 3.12, 4.5). ``force_separate_z`` None means: decide by spacing."""

    is_seg: bool
    order: int
    order_z: int = 0
    force_separate_z: bool | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "is_seg": self.is_seg,
            "order": self.order,
            "order_z": self.order_z,
            "force_separate_z": self.force_separate_z,
        }

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> Resampling:
        return Resampling(
            is_seg=bool(record["is_seg"]),
            order=int(record["order"]),
            order_z=int(record.get("order_z", 0)),
            force_separate_z=record.get("force_separate_z"),
        )


RESAMPLE_IMAGE = Resampling(is_seg=False, order=3)
RESAMPLE_LABEL = Resampling(is_seg=True, order=1)
RESAMPLE_LOGITS = Resampling(is_seg=False, order=1)


@dataclass(frozen=True)
class Configuration:
    """One configuration of the plans, inheritance resolved; all axes are in transposed order.

    ``spacing_mm``, ``patch_size`` and ``median_size_voxels`` have two entries in a 2-D configuration, else three.
    """

    name: str
    data_identifier: str
    batch_size: int
    patch_size: tuple[int, ...]
    median_size_voxels: tuple[float, ...]
    spacing_mm: tuple[float, ...]
    normalization_schemes: tuple[str, ...]
    use_mask_for_norm: tuple[bool, ...]
    resampling_image: Resampling
    resampling_label: Resampling
    resampling_logits: Resampling
    architecture: Architecture
    batch_dice: bool
    previous_stage: str | None = None
    next_stages: tuple[str, ...] = ()
    preprocessor_name: str = "DefaultPreprocessor"

    @property
    def is_2d(self) -> bool:
        return len(self.patch_size) == 2

    def to_json(self) -> dict[str, Any]:
        """v2's entry of a configuration, keys in v2's order."""
        record: dict[str, Any] = {
            "data_identifier": self.data_identifier,
            "preprocessor_name": self.preprocessor_name,
            "batch_size": self.batch_size,
            "patch_size": list(self.patch_size),
            "median_image_size_in_voxels": list(self.median_size_voxels),
            "spacing": list(self.spacing_mm),
            "normalization_schemes": list(self.normalization_schemes),
            "use_mask_for_norm": list(self.use_mask_for_norm),
            "resampling_fn_data": RESAMPLING_FUNCTION,
            "resampling_fn_seg": RESAMPLING_FUNCTION,
            "resampling_fn_data_kwargs": self.resampling_image.to_json(),
            "resampling_fn_seg_kwargs": self.resampling_label.to_json(),
            "resampling_fn_probabilities": RESAMPLING_FUNCTION,
            "resampling_fn_probabilities_kwargs": self.resampling_logits.to_json(),
            "architecture": self.architecture.to_json(),
            "batch_dice": self.batch_dice,
        }
        if self.next_stages:
            record["next_stage"] = self.next_stages[0] if len(self.next_stages) == 1 else list(self.next_stages)
        if self.previous_stage is not None:
            record["previous_stage"] = self.previous_stage
        return record

    @staticmethod
    def from_json(name: str, record: Mapping[str, Any]) -> Configuration:
        """Read a resolved entry (see :meth:`Plans.configuration`).

        Raises:
            PlansError: something is missing or names a function this program does not have.
        """
        try:
            for role in ("data", "seg", "probabilities"):
                function = record.get(f"resampling_fn_{role}", RESAMPLING_FUNCTION)
                if function != RESAMPLING_FUNCTION:
                    text = f"configuration {brief(name)}: the resampling function {brief(function)} is not available"
                    raise PlansError(text)
            following = record.get("next_stage") or ()
            configuration = Configuration(
                name=name,
                data_identifier=str(record["data_identifier"]),
                preprocessor_name=str(record.get("preprocessor_name", "DefaultPreprocessor")),
                batch_size=int(record["batch_size"]),
                patch_size=tuple(int(v) for v in record["patch_size"]),
                median_size_voxels=tuple(_number(v) for v in record["median_image_size_in_voxels"]),
                spacing_mm=tuple(float(v) for v in record["spacing"]),
                normalization_schemes=tuple(str(v) for v in record["normalization_schemes"]),
                use_mask_for_norm=tuple(bool(v) for v in record["use_mask_for_norm"]),
                resampling_image=Resampling.from_json(record["resampling_fn_data_kwargs"]),
                resampling_label=Resampling.from_json(record["resampling_fn_seg_kwargs"]),
                resampling_logits=Resampling.from_json(record["resampling_fn_probabilities_kwargs"]),
                architecture=Architecture.from_json(record["architecture"]),
                batch_dice=bool(record["batch_dice"]),
                previous_stage=_optional_text(record.get("previous_stage")),
                next_stages=(following,) if isinstance(following, str) else tuple(following),
            )
            if not all(0 < edge < math.inf for edge in configuration.spacing_mm):
                raise ValueError(f"spacing {brief(configuration.spacing_mm)} must be positive")
            return configuration
        except KeyError as missing:
            raise PlansError(f"plans: configuration {brief(name)} lacks {brief(str(missing))}") from None
        except MALFORMED as problem:
            text = brief(str(problem))
            raise PlansError(f"plans: configuration {brief(name)} is not valid ({text})") from problem


@dataclass(frozen=True)
class Plans:
    """A plans file. ``configurations`` keeps the raw entries, so inheritance and unknown keys survive a round trip."""

    dataset_name: str
    plans_name: str
    original_median_spacing_mm: tuple[float, ...]
    original_median_shape: tuple[int, ...]
    reader: str
    transpose_forward: tuple[int, ...]
    transpose_backward: tuple[int, ...]
    configurations: Mapping[str, Mapping[str, Any]]
    planner: str
    intensities: tuple[IntensityStatistics, ...]
    extras: Mapping[str, Any] = field(default_factory=dict)
    """What segwright adds, under the one key ``segwright``."""

    def configuration(self, name: str) -> Configuration:
        """The configuration with its ``inherits_from`` chain resolved (method 3.14).

        Raises:
            PlansError: the name is unknown, or the chain is broken or goes in a circle.
        """
        return Configuration.from_json(name, self.resolved(name))

    def resolved(self, name: str) -> dict[str, Any]:
        """The entry as v2 sees it: the parent's keys, overwritten by the child's, recursively."""
        merged: dict[str, Any] = {}
        for ancestor in self.lineage(name):
            merged = {**self.configurations[ancestor], **merged}
        merged.pop("inherits_from", None)
        return merged

    def lineage(self, name: str) -> tuple[str, ...]:
        """The configuration and its ancestors, nearest first."""
        chain: list[str] = []
        current: str | None = name
        while current is not None:
            if current not in self.configurations:
                known = brief(", ".join(self.configurations))
                raise PlansError(f"plans: there is no configuration {brief(current)} (there are: {known})")
            if current in chain:
                raise PlansError(f"plans: inherits_from goes in a circle: {brief(' -> '.join([*chain, current]))}")
            chain.append(current)
            current = self.configurations[current].get("inherits_from")
            if current is not None and not isinstance(current, str):
                raise PlansError(f"plans: inherits_from of {brief(chain[-1])} is {brief(current)}, not a name")
        return tuple(chain)

    def to_json(self) -> dict[str, Any]:
        record: dict[str, Any] = {
            "dataset_name": self.dataset_name,
            "plans_name": self.plans_name,
            "original_median_spacing_after_transp": list(self.original_median_spacing_mm),
            "original_median_shape_after_transp": list(self.original_median_shape),
            "image_reader_writer": self.reader,
            "transpose_forward": list(self.transpose_forward),
            "transpose_backward": list(self.transpose_backward),
            "configurations": {name: dict(entry) for name, entry in self.configurations.items()},
            "experiment_planner_used": self.planner,
            "label_manager": "LabelManager",
            "foreground_intensity_properties_per_channel": {
                str(channel): statistics.to_json() for channel, statistics in enumerate(self.intensities)
            },
        }
        if self.extras:
            record["segwright"] = dict(self.extras)
        return record

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> Plans:
        """Read a plans file of any v2 release (old network entries are converted, method 3.13).

        Raises:
            PlansError: it is not a plans file.
        """
        try:
            intensities = record.get(
                "foreground_intensity_properties_per_channel", record.get("foreground_intensity_properties_by_modality")
            )
            if intensities is None:
                raise PlansError("plans: foreground_intensity_properties_per_channel is missing")
            return Plans(
                dataset_name=str(record["dataset_name"]),
                plans_name=str(record["plans_name"]),
                original_median_spacing_mm=tuple(float(v) for v in record["original_median_spacing_after_transp"]),
                original_median_shape=tuple(int(v) for v in record["original_median_shape_after_transp"]),
                reader=str(record["image_reader_writer"]),
                transpose_forward=axis_order(record["transpose_forward"]),
                transpose_backward=axis_order(record["transpose_backward"]),
                configurations={str(name): _modern_entry(entry) for name, entry in record["configurations"].items()},
                planner=str(record.get("experiment_planner_used", "ExperimentPlanner")),
                intensities=tuple(
                    IntensityStatistics.from_json(intensities[key]) for key in sorted(intensities, key=int)
                ),
                extras=dict(record.get("segwright", {})),
            )
        except KeyError as missing:
            raise PlansError(f"plans: {brief(str(missing))} is missing") from None
        except MALFORMED as problem:
            raise PlansError(f"plans: not a valid plans file ({brief(str(problem))})") from problem


def _modern_entry(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Convert an entry of v2 releases up to about 2.2, which described the network by single keys."""
    entry = dict(entry)
    if "architecture" in entry or "UNet_class_name" not in entry:
        return entry
    strides = entry.pop("pool_op_kernel_sizes")
    kernels = entry.pop("conv_kernel_sizes")
    base, limit = int(entry.pop("UNet_base_num_features")), int(entry.pop("unet_max_num_features"))
    kind = {"PlainConvUNet": "plain_unet", "ResidualEncoderUNet": "residual_unet"}.get(
        str(entry.pop("UNet_class_name"))
    )
    if kind is None:
        raise PlansError("plans: UNet_class_name must be PlainConvUNet or ResidualEncoderUNet")
    architecture = Architecture(
        kind=kind,
        features_per_stage=tuple(min(base * 2**stage, limit) for stage in range(len(strides))),
        kernel_sizes=tuple(tuple(kernel) for kernel in kernels),
        strides=tuple(tuple(stride) for stride in strides),
        blocks_per_stage=tuple(entry.pop("n_conv_per_stage_encoder")),
        convs_per_stage_decoder=tuple(entry.pop("n_conv_per_stage_decoder")),
    )
    entry.pop("num_pool_per_axis", None)
    entry["architecture"] = architecture.to_json()
    return entry


def axis_order(value: Any) -> tuple[int, ...]:
    """An order of the three axes. Raises ValueError."""
    order = tuple(int(axis) for axis in value)
    if sorted(order) != [0, 1, 2]:
        raise ValueError(f"an order of axes must hold 0, 1 and 2 once, not {order}")
    return order


def _optional_text(value: Any) -> str | None:
    if not (value is None or isinstance(value, str)):
        raise TypeError(f"{value!r} is no name")
    return value


def _number(value: Any) -> float:
    """A float, but a whole number that is written without a point (3d_lowres in v2) stays one."""
    return value if isinstance(value, int) else float(value)
