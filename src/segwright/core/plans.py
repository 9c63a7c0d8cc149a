"""Plans: everything the planner decides, in nnU-Net v2's JSON schema (method 3.13, 3.14), and the slices stages read.

``Plans`` is the file. ``Configuration`` is one configuration with its inheritance resolved. Each later stage depends on
its own slice only, so that a changed batch size preprocesses nothing again (design, decision 5).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from segwright.core.dataset import Labels
from segwright.core.errors import PlansError
from segwright.core.files import json_digest

NETWORK_CLASS_NAMES = {
    "plain_unet": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
    "residual_unet": "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet",
}
_KIND_OF_CLASS = {name: kind for kind, name in NETWORK_CLASS_NAMES.items()}
RESAMPLING_FUNCTION = "resample_data_or_seg_to_shape"


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
class Architecture:
    """A network by its registered name and its numbers (method 7).

    Attributes:
        kind: ``plain_unet``, ``residual_unet`` or the name a plugin registered.
        features_per_stage, kernel_sizes, strides: one entry a stage, highest resolution first.
        blocks_per_stage: convolutions (plain) or residual blocks (residual) per encoder stage.
        convs_per_stage_decoder: convolutions per decoder stage, lowest resolution first.
        extra: further arguments of a plugin's network.
    """

    kind: str
    features_per_stage: tuple[int, ...]
    kernel_sizes: tuple[tuple[int, ...], ...]
    strides: tuple[tuple[int, ...], ...]
    blocks_per_stage: tuple[int, ...]
    convs_per_stage_decoder: tuple[int, ...]
    conv_bias: bool = True
    norm_eps: float = 1e-5
    norm_affine: bool = True
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def n_stages(self) -> int:
        return len(self.features_per_stage)

    @property
    def dimensions(self) -> int:
        return len(self.strides[0])

    def to_json(self) -> dict[str, Any]:
        """v2's ``architecture`` entry, keys in v2's order."""
        d = self.dimensions
        blocks = "n_blocks_per_stage" if self.kind == "residual_unet" else "n_conv_per_stage"
        arguments: dict[str, Any] = {
            "n_stages": self.n_stages,
            "features_per_stage": list(self.features_per_stage),
            "conv_op": f"torch.nn.modules.conv.Conv{d}d",
            "kernel_sizes": [list(kernel) for kernel in self.kernel_sizes],
            "strides": [list(stride) for stride in self.strides],
            blocks: list(self.blocks_per_stage),
            "n_conv_per_stage_decoder": list(self.convs_per_stage_decoder),
            "conv_bias": self.conv_bias,
            "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{d}d",
            "norm_op_kwargs": {"eps": self.norm_eps, "affine": self.norm_affine},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        }
        arguments.update(self.extra)
        return {
            "network_class_name": NETWORK_CLASS_NAMES.get(self.kind, self.kind),
            "arch_kwargs": arguments,
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        }

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> Architecture:
        """Read v2's ``architecture`` entry. Names in it are looked up in a closed table, never imported."""
        arguments = dict(record["arch_kwargs"])
        name = str(record["network_class_name"])
        _refuse_foreign_operators(arguments)
        n_stages = int(arguments["n_stages"])
        blocks = arguments.get("n_blocks_per_stage", arguments.get("n_conv_per_stage", 2))
        dimensions = len(_listed(arguments["strides"][0], 1))
        known = {
            "n_stages", "features_per_stage", "conv_op", "kernel_sizes", "strides", "n_blocks_per_stage",
            "n_conv_per_stage", "n_conv_per_stage_decoder", "conv_bias", "norm_op", "norm_op_kwargs", "dropout_op",
            "dropout_op_kwargs", "nonlin", "nonlin_kwargs", "deep_supervision",
        }  # fmt: skip
        norm = arguments.get("norm_op_kwargs") or {}
        return Architecture(
            kind=_KIND_OF_CLASS.get(name, name),
            features_per_stage=tuple(int(v) for v in _listed(arguments["features_per_stage"], n_stages)),
            kernel_sizes=tuple(_edges(kernel, dimensions) for kernel in _listed(arguments["kernel_sizes"], n_stages)),
            strides=tuple(_edges(stride, dimensions) for stride in _listed(arguments["strides"], n_stages)),
            blocks_per_stage=tuple(int(v) for v in _listed(blocks, n_stages)),
            convs_per_stage_decoder=tuple(int(v) for v in _listed(arguments["n_conv_per_stage_decoder"], n_stages - 1)),
            conv_bias=bool(arguments.get("conv_bias", True)),
            norm_eps=float(norm.get("eps", 1e-5)),
            norm_affine=bool(norm.get("affine", True)),
            extra={key: value for key, value in arguments.items() if key not in known},
        )


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
                    raise PlansError(f"configuration {name}: the resampling function {function} is not available")
            following = record.get("next_stage") or ()
            return Configuration(
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
                previous_stage=record.get("previous_stage"),
                next_stages=(following,) if isinstance(following, str) else tuple(following),
            )
        except KeyError as missing:
            raise PlansError(f"plans: configuration {name} lacks {missing}") from None
        except (TypeError, ValueError, IndexError) as problem:
            raise PlansError(f"plans: configuration {name} is not valid ({problem})") from problem


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
                known = ", ".join(self.configurations)
                raise PlansError(f"plans: there is no configuration {current} (there are: {known})")
            if current in chain:
                raise PlansError(f"plans: inherits_from goes in a circle: {' -> '.join([*chain, current])}")
            chain.append(current)
            current = self.configurations[current].get("inherits_from")
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
                transpose_forward=tuple(int(v) for v in record["transpose_forward"]),
                transpose_backward=tuple(int(v) for v in record["transpose_backward"]),
                configurations={str(name): _modern_entry(entry) for name, entry in record["configurations"].items()},
                planner=str(record.get("experiment_planner_used", "ExperimentPlanner")),
                intensities=tuple(
                    IntensityStatistics.from_json(intensities[key]) for key in sorted(intensities, key=int)
                ),
                extras=dict(record.get("segwright", {})),
            )
        except KeyError as missing:
            raise PlansError(f"plans: {missing} is missing") from None
        except (TypeError, ValueError, AttributeError) as problem:
            raise PlansError(f"plans: not a valid plans file ({problem})") from problem


@dataclass(frozen=True)
class PreprocessPlan:
    """All that preprocessed arrays depend on besides the case itself: the *preprocess slice*.

    Attributes:
        data_name: root of the configuration's ``inherits_from`` chain; names the folder for people.
        spacing_mm: target spacing, transposed order; two entries mean 2-D, the slice axis keeps its spacing.
        intensities: per channel, only where the scheme uses dataset statistics (CT), else None.
        label_resize: ``argmax`` (v2 now) or ``threshold`` (v1 and older v2), method 4.5.
        order_of_steps: ``normalize_first`` (v2) or ``resample_first`` (v1).
    """

    data_name: str
    channel_names: tuple[str, ...]
    labels: Labels
    reader: str
    transpose_forward: tuple[int, ...]
    transpose_backward: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    normalization_schemes: tuple[str, ...]
    use_mask_for_norm: tuple[bool, ...]
    intensities: tuple[IntensityStatistics | None, ...]
    resampling_image: Resampling = RESAMPLE_IMAGE
    resampling_label: Resampling = RESAMPLE_LABEL
    label_resize: Literal["argmax", "threshold"] = "argmax"
    order_of_steps: Literal["normalize_first", "resample_first"] = "normalize_first"

    @property
    def is_2d(self) -> bool:
        return len(self.spacing_mm) == 2

    @property
    def data_id(self) -> str:
        """Name of the store: readable root plus a digest of the whole slice."""
        return f"{self.data_name}-{json_digest(self.to_json())[:12]}"

    def to_json(self) -> dict[str, Any]:
        return {
            "data_name": self.data_name,
            "channel_names": list(self.channel_names),
            **self.labels.to_json(),
            "reader": self.reader,
            "transpose_forward": list(self.transpose_forward),
            "transpose_backward": list(self.transpose_backward),
            "spacing_mm": list(self.spacing_mm),
            "normalization_schemes": list(self.normalization_schemes),
            "use_mask_for_norm": list(self.use_mask_for_norm),
            "intensities": [None if statistics is None else statistics.to_json() for statistics in self.intensities],
            "resampling_image": self.resampling_image.to_json(),
            "resampling_label": self.resampling_label.to_json(),
            "label_resize": self.label_resize,
            "order_of_steps": self.order_of_steps,
        }

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> PreprocessPlan:
        return PreprocessPlan(
            data_name=record["data_name"],
            channel_names=tuple(record["channel_names"]),
            labels=Labels.from_json(record),
            reader=record["reader"],
            transpose_forward=tuple(record["transpose_forward"]),
            transpose_backward=tuple(record["transpose_backward"]),
            spacing_mm=tuple(record["spacing_mm"]),
            normalization_schemes=tuple(record["normalization_schemes"]),
            use_mask_for_norm=tuple(record["use_mask_for_norm"]),
            intensities=tuple(None if v is None else IntensityStatistics.from_json(v) for v in record["intensities"]),
            resampling_image=Resampling.from_json(record["resampling_image"]),
            resampling_label=Resampling.from_json(record["resampling_label"]),
            label_resize=record["label_resize"],
            order_of_steps=record["order_of_steps"],
        )


@dataclass(frozen=True)
class TrainPlan:
    """What a training needs of the plans: the *train slice*. ``num_channels`` counts image channels only."""

    configuration: str
    num_channels: int
    labels: Labels
    patch_size: tuple[int, ...]
    batch_size: int
    architecture: Architecture
    batch_dice: bool
    use_mask_for_norm: tuple[bool, ...]
    previous_stage: str | None = None

    @property
    def is_2d(self) -> bool:
        return len(self.patch_size) == 2

    @property
    def num_input_channels(self) -> int:
        """Input channels of the network: a cascade adds one per foreground label."""
        return self.num_channels + (len(self.labels.foreground_labels) if self.previous_stage else 0)

    def to_json(self) -> dict[str, Any]:
        return {
            "configuration": self.configuration,
            "num_channels": self.num_channels,
            **self.labels.to_json(),
            "patch_size": list(self.patch_size),
            "batch_size": self.batch_size,
            "architecture": self.architecture.to_json(),
            "batch_dice": self.batch_dice,
            "use_mask_for_norm": list(self.use_mask_for_norm),
            "previous_stage": self.previous_stage,
        }

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> TrainPlan:
        return TrainPlan(
            configuration=record["configuration"],
            num_channels=int(record["num_channels"]),
            labels=Labels.from_json(record),
            patch_size=tuple(record["patch_size"]),
            batch_size=int(record["batch_size"]),
            architecture=Architecture.from_json(record["architecture"]),
            batch_dice=bool(record["batch_dice"]),
            use_mask_for_norm=tuple(record["use_mask_for_norm"]),
            previous_stage=record["previous_stage"],
        )


@dataclass(frozen=True)
class PredictPlan:
    """What prediction needs of the plans, from raw image to label map on its grid: the *predict slice*."""

    configuration: str
    preprocess: PreprocessPlan
    patch_size: tuple[int, ...]
    architecture: Architecture
    resampling_logits: Resampling = RESAMPLE_LOGITS
    previous_stage: str | None = None
    next_stages: tuple[str, ...] = ()

    @property
    def labels(self) -> Labels:
        return self.preprocess.labels

    @property
    def is_2d(self) -> bool:
        return len(self.patch_size) == 2

    @property
    def num_input_channels(self) -> int:
        channels = len(self.preprocess.normalization_schemes)
        return channels + (len(self.labels.foreground_labels) if self.previous_stage else 0)

    def to_json(self) -> dict[str, Any]:
        return {
            "configuration": self.configuration,
            "preprocess": self.preprocess.to_json(),
            "patch_size": list(self.patch_size),
            "architecture": self.architecture.to_json(),
            "resampling_logits": self.resampling_logits.to_json(),
            "previous_stage": self.previous_stage,
            "next_stages": list(self.next_stages),
        }

    @staticmethod
    def from_json(record: Mapping[str, Any]) -> PredictPlan:
        return PredictPlan(
            configuration=record["configuration"],
            preprocess=PreprocessPlan.from_json(record["preprocess"]),
            patch_size=tuple(record["patch_size"]),
            architecture=Architecture.from_json(record["architecture"]),
            resampling_logits=Resampling.from_json(record["resampling_logits"]),
            previous_stage=record["previous_stage"],
            next_stages=tuple(record["next_stages"]),
        )


def preprocess_slice(
    plans: Plans,
    name: str,
    labels: Labels,
    channel_names: tuple[str, ...],
    label_resize: Literal["argmax", "threshold"] = "argmax",
    order_of_steps: Literal["normalize_first", "resample_first"] = "normalize_first",
) -> PreprocessPlan:
    """Cut the preprocess slice of one configuration out of the plans."""
    configuration = plans.configuration(name)
    uses_dataset_statistics = [scheme == "CTNormalization" for scheme in configuration.normalization_schemes]
    return PreprocessPlan(
        data_name=plans.lineage(name)[-1],
        channel_names=channel_names,
        labels=labels,
        reader=plans.reader,
        transpose_forward=plans.transpose_forward,
        transpose_backward=plans.transpose_backward,
        spacing_mm=configuration.spacing_mm,
        normalization_schemes=configuration.normalization_schemes,
        use_mask_for_norm=configuration.use_mask_for_norm,
        intensities=tuple(
            plans.intensities[channel] if used else None for channel, used in enumerate(uses_dataset_statistics)
        ),
        resampling_image=configuration.resampling_image,
        resampling_label=configuration.resampling_label,
        label_resize=label_resize,
        order_of_steps=order_of_steps,
    )


def train_slice(plans: Plans, name: str, labels: Labels) -> TrainPlan:
    """Cut the train slice of one configuration out of the plans."""
    configuration = plans.configuration(name)
    return TrainPlan(
        configuration=name,
        num_channels=len(configuration.normalization_schemes),
        labels=labels,
        patch_size=configuration.patch_size,
        batch_size=configuration.batch_size,
        architecture=configuration.architecture,
        batch_dice=configuration.batch_dice,
        use_mask_for_norm=configuration.use_mask_for_norm,
        previous_stage=configuration.previous_stage,
    )


def predict_slice(plans: Plans, name: str, preprocess: PreprocessPlan) -> PredictPlan:
    """Cut the predict slice of one configuration out of the plans."""
    configuration = plans.configuration(name)
    return PredictPlan(
        configuration=name,
        preprocess=preprocess,
        patch_size=configuration.patch_size,
        architecture=configuration.architecture,
        resampling_logits=configuration.resampling_logits,
        previous_stage=configuration.previous_stage,
        next_stages=configuration.next_stages,
    )


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


def _refuse_foreign_operators(arguments: Mapping[str, Any]) -> None:
    """Only the operators of the method exist; another name in a file is an error, never an import."""
    allowed = {
        "conv_op": ("Conv2d", "Conv3d"),
        "norm_op": ("InstanceNorm2d", "InstanceNorm3d"),
        "nonlin": ("LeakyReLU",),
        "dropout_op": ("None",),
    }
    for key, names in allowed.items():
        value = str(arguments.get(key)).rsplit(".", 1)[-1]
        if key in arguments and value not in names:
            raise PlansError(f"plans: {key} {arguments[key]} is not available (known: {', '.join(names)})")


def _listed(value: Any, length: int) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value] * length


def _number(value: Any) -> float:
    """A float, but a whole number that is written without a point (3d_lowres in v2) stays one."""
    return value if isinstance(value, int) else float(value)


def _edges(value: Any, dimensions: int) -> tuple[int, ...]:
    return tuple(int(v) for v in _listed(value, dimensions))
