"""A network by its registered name and its numbers, in nnU-Net v2's ``architecture`` entry (method 3.13, 7)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from segwright.core.errors import PlansError, brief

NETWORK_CLASS_NAMES = {
    "plain_unet": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
    "residual_unet": "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet",
}
_STAGES_MAX, _BLOCKS_MAX, _EDGE_MAX, _FEATURES_MAX = 20, 100, 64, 16_384
_KIND_OF_CLASS = {name: kind for kind, name in NETWORK_CLASS_NAMES.items()}


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
        if not 1 <= n_stages <= _STAGES_MAX:
            raise ValueError(f"n_stages is {n_stages}")
        architecture = Architecture(
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
        architecture._check()
        return architecture

    def _check(self) -> None:
        """Refuse numbers no network can have. Raises ValueError."""
        d, stages = self.dimensions, self.n_stages
        per_stage = (self.features_per_stage, self.kernel_sizes, self.strides, self.blocks_per_stage)
        if d not in (2, 3) or any(len(edges) != d for edges in (*self.kernel_sizes, *self.strides)):
            raise ValueError("kernel_sizes and strides must have 2 or 3 axes everywhere")
        if any(len(values) != stages for values in per_stage) or len(self.convs_per_stage_decoder) != stages - 1:
            raise ValueError("features, kernels, strides and blocks differ in number")
        counts = (*self.blocks_per_stage, *self.convs_per_stage_decoder)
        edges = [edge for axes in (*self.kernel_sizes, *self.strides) for edge in axes]
        if any(not 1 <= count <= _BLOCKS_MAX for count in counts):
            raise ValueError(f"a stage has no block, or more than {_BLOCKS_MAX} blocks")
        if any(not 1 <= edge <= _EDGE_MAX for edge in edges):
            raise ValueError(f"a kernel or stride is not from 1 to {_EDGE_MAX}")
        if any(not 1 <= features <= _FEATURES_MAX for features in self.features_per_stage):
            raise ValueError("features_per_stage is not possible")


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
            raise PlansError(f"plans: {key} {brief(arguments[key])} is not available (known: {', '.join(names)})")


def _listed(value: Any, length: int) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value] * length


def _edges(value: Any, dimensions: int) -> tuple[int, ...]:
    return tuple(int(v) for v in _listed(value, dimensions))
