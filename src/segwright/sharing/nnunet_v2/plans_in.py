"""plans.json and dataset.json of nnU-Net v2, old and new, as segwright's (method 1.2, 3.13, 3.14).

Everything in them that names a class or function is looked up in a closed table. What segwright does not have is an
error that names it, never ignored: a model must not predict otherwise than the program that trained it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from segwright.core.architecture import NETWORK_CLASS_NAMES
from segwright.core.errors import DatasetError, ModelError, PlansError
from segwright.core.labels import Labels, require_name
from segwright.core.plans import RESAMPLING_FUNCTION, Plans
from segwright.images.readers import choose_reader
from segwright.preprocessing.normalization import SCHEMES

_OLD_CLASS_NAMES = {
    "dynamic_network_architectures.architectures.residual_unet.ResidualEncoderUNet": NETWORK_CLASS_NAMES[
        "residual_unet"
    ],
}
"""Other paths under which releases of nnU-Net v2 named the same classes."""
_OPERATORS = {
    "conv_op": ("torch.nn.modules.conv.Conv{d}d", "torch.nn.Conv{d}d"),
    "norm_op": ("torch.nn.modules.instancenorm.InstanceNorm{d}d", "torch.nn.InstanceNorm{d}d"),
    "nonlin": ("torch.nn.LeakyReLU", "torch.nn.modules.activation.LeakyReLU"),
    "dropout_op": (None,),
}
"""The operators of the method (7.1); ``{d}`` is the number of spatial axes."""
_BLOCKS = {"plain_unet": "n_conv_per_stage", "residual_unet": "n_blocks_per_stage"}
_READ_ARGUMENTS = frozenset(
    {"n_stages", "features_per_stage", "kernel_sizes", "strides", "n_conv_per_stage_decoder", "deep_supervision"}
    | {
        "conv_op",
        "conv_bias",
        "norm_op",
        "norm_op_kwargs",
        "dropout_op",
        "dropout_op_kwargs",
        "nonlin",
        "nonlin_kwargs",
    }
)
_HARMLESS_ARGUMENTS: Mapping[str, tuple[Any, ...]] = {
    "nonlin_first": (False,),
    "block": ("dynamic_network_architectures.building_blocks.residual.BasicBlockD",),
    "bottleneck_channels": (None,),
    "stem_channels": (None,),
}
"""Further arguments of nnU-Net's networks, with the values that change nothing."""
_HARMLESS_NORM = {"track_running_stats": (False,), "momentum": (0.1, None)}
_CHANNEL_KEY = re.compile(r"[0-9]{1,4}")
_ROLES = ("data", "seg", "probabilities")
_RESAMPLING_DEFAULTS = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": False}
"""What nnU-Net's function assumes for arguments that the plans leave out."""
_SEPARATE_Z_THRESHOLD = 3.0
_STAGES_MAX, _BLOCKS_MAX = 16, 100
_UNREADABLE = (PlansError, KeyError, TypeError, ValueError, AttributeError, IndexError)


def plans_from_v2(record: Any, needed: Iterable[str], where: str) -> Plans:
    """The plans of an nnU-Net v2 model.

    Inheritance of entries in the old style is resolved before they are translated, as nnU-Net does: a child may
    override single keys of the old network description. Configurations nobody needs stay if they can be read; a child
    of one that cannot be read is stored with all it inherits.

    Args:
        record: content of plans.json.
        needed: configurations that will predict; each is checked to the last argument.
        where: names the file in messages.

    Raises:
        PlansError: something is missing, contradicts itself, or is not available in segwright.
    """
    needed = tuple(needed)
    if not isinstance(record, Mapping) or not isinstance(record.get("configurations"), Mapping):
        raise PlansError(f"{where}: is not a plans file of nnU-Net v2 (it has no `configurations`)")
    try:
        manager = record.get("label_manager", "LabelManager")
        if manager != "LabelManager":
            raise PlansError(f"plans: the label manager {manager} is not available")
        entries = {str(name): entry for name, entry in record["configurations"].items()}
        translated = {}
        for name in entries:
            try:
                translated[name] = _translated(name, entries)
            except _UNREADABLE:
                if name in needed:
                    raise
        alone = [name for name, entry in translated.items() if entry.get("inherits_from", name) not in translated]
        translated |= {name: _translated(name, entries, merge=True) for name in alone}
        plans = Plans.from_json({**record, "configurations": translated})
        for name in needed:
            _check(plans, name)
    except PlansError as error:
        raise PlansError(f"{where}: {error}") from error
    except _UNREADABLE as problem:
        raise PlansError(f"{where}: not a valid plans file ({problem!r})") from problem
    return plans


def facts_from_v2(record: Any, plans: Plans, where: str) -> dict[str, Any]:
    """The content of a model's dataset.json, with the names of today, labels as integers and channels from 0 on.

    nnU-Net counts the channels and looks at no key: those that begin with 1, or are written 0000, are numbered anew.

    Raises:
        DatasetError: channels, labels or file ending are missing or wrong, or the reader cannot read the files.
    """
    if not isinstance(record, Mapping):
        raise DatasetError(f"{where}: must hold a JSON object")
    channels = record.get("channel_names", record.get("modality"))
    if (
        not isinstance(channels, Mapping)
        or not all(_CHANNEL_KEY.fullmatch(str(key)) for key in channels)
        or len({int(key) for key in channels}) != len(channels)
    ):
        raise DatasetError(f'{where}: `channel_names` must be like {{"0": "T1", "1": "T2"}}')
    if not channels or not isinstance(record.get("file_ending"), str):
        raise DatasetError(f"{where}: `channel_names` or `file_ending` is missing")
    try:
        for name in filter(None, map(str, channels.values())):
            require_name(name, "channel")
        labels = Labels.from_json(record).to_json()["labels"]
        choose_reader(record["file_ending"], override=plans.reader)
    except DatasetError as error:
        raise DatasetError(f"{where}: {error}") from error
    except (TypeError, ValueError) as problem:
        raise DatasetError(f"{where}: labels or regions_class_order are not valid ({problem})") from problem
    ordered = {str(index): str(channels[key]) for index, key in enumerate(sorted(channels, key=int))}
    kept = {key: value for key, value in record.items() if key != "modality"}
    return {**kept, "channel_names": ordered, "labels": labels}


def require_same(first: Plans, other: Plans, names: str) -> None:
    """Plans whose configurations shall predict together must see the same images in the same way.

    Raises:
        ModelError: they turn axes otherwise, or use another reader or other intensities.
    """
    for what, attribute in (
        ("axis order", "transpose_forward"), ("image reader", "reader"), ("intensities", "intensities"),
    ):  # fmt: skip
        if getattr(first, attribute) != getattr(other, attribute):
            raise ModelError(f"{names}: their plans have another {what}; import one of them with --configurations")


def with_configuration_of(plans: Plans, other: Plans, name: str, new_name: str, previous_stage: str | None) -> Plans:
    """Add a configuration of other plans under a new name, without inheritance, on a previous stage of a new name."""
    entry = {key: value for key, value in other.resolved(name).items() if key != "previous_stage"}
    if previous_stage is not None:
        entry["previous_stage"] = previous_stage
    return replace(plans, configurations={**plans.configurations, new_name: entry})


def _translated(name: str, entries: Mapping[str, Mapping[str, Any]], *, merge: bool = False) -> dict[str, Any]:
    """One entry in the present style; ``inherits_from`` stays where nothing has to be translated or merged."""
    merged: dict[str, Any] = {}
    current, seen = name, [name]
    while True:
        if current not in entries:
            raise PlansError(f"plans: there is no configuration {current} (there are: {', '.join(entries)})")
        merged = {**entries[current], **merged}
        if "inherits_from" not in entries[current]:
            break
        current = str(entries[current]["inherits_from"])
        if current in seen:
            raise PlansError(f"plans: inherits_from goes in a circle: {' -> '.join([*seen, current])}")
        seen.append(current)
    merged.pop("inherits_from", None)
    if "architecture" in merged:
        architecture = _architecture(name, merged["architecture"])
        entry = dict(merged if merge else entries[name])
        entry.pop("UNet_class_name", None)  # is not looked at then
        if "architecture" in entry:
            entry["architecture"] = architecture
        return _with_resampling_defaults(entry)
    kind = merged.get("UNet_class_name")
    if kind not in ("PlainConvUNet", "ResidualEncoderUNet"):
        raise PlansError(f"configuration {name}: the network {kind} is not available (known: {_known_networks()})")
    return _with_resampling_defaults(merged)


def _with_resampling_defaults(entry: dict[str, Any]) -> dict[str, Any]:
    for key in (f"resampling_fn_{role}_kwargs" for role in _ROLES):
        if key in entry:
            entry[key] = {**_RESAMPLING_DEFAULTS, **entry[key]}
    return entry


def _architecture(name: str, record: Mapping[str, Any]) -> dict[str, Any]:
    """An ``architecture`` entry with every argument that changes the network checked and written out."""
    class_name = str(record["network_class_name"])
    class_name = _OLD_CLASS_NAMES.get(class_name, class_name)
    kinds = {text: kind for kind, text in NETWORK_CLASS_NAMES.items()}
    if class_name not in kinds:
        raise PlansError(
            f"configuration {name}: the network {class_name} is not available (known: {_known_networks()})"
        )
    arguments = dict(record["arch_kwargs"])
    stages, blocks = int(arguments["n_stages"]), _BLOCKS[kinds[class_name]]
    if not 2 <= stages <= _STAGES_MAX:
        raise PlansError(f"configuration {name}: a network of {stages} stages is not available (2 to {_STAGES_MAX})")
    problems = [
        f"{key} = {value!r}"
        for key, value in arguments.items()
        if key not in _READ_ARGUMENTS | {blocks} and value not in _HARMLESS_ARGUMENTS.get(key, ())
    ]
    problems += _operator_problems(arguments)
    if problems:
        raise PlansError(f"configuration {name}: the network's {', '.join(problems)} is not available")
    norm = arguments.get("norm_op_kwargs") or {}
    arguments["norm_op_kwargs"] = {"eps": norm.get("eps", 1e-5), "affine": norm.get("affine", False)}
    arguments["conv_bias"] = arguments.get("conv_bias", False)
    for key in _HARMLESS_ARGUMENTS:
        arguments.pop(key, None)
    return {**record, "network_class_name": class_name, "arch_kwargs": arguments}


def _operator_problems(arguments: Mapping[str, Any]) -> list[str]:
    """Operators the networks here do not have; one that is left out is none at all in nnU-Net's classes."""
    strides = arguments["strides"][0]
    dimensions = len(strides) if isinstance(strides, list) else 0
    problems = []
    for key, known in _OPERATORS.items():
        value = arguments.get(key)
        if value not in [text and text.format(d=dimensions) for text in known]:
            problems.append(f"{key} = {value}")
    norm, nonlin = arguments.get("norm_op_kwargs") or {}, arguments.get("nonlin_kwargs") or {}
    problems += [
        f"norm_op_kwargs.{key} = {value!r}"
        for key, value in norm.items()
        if key not in ("eps", "affine") and value not in _HARMLESS_NORM.get(key, ())
    ]
    problems += [
        f"nonlin_kwargs.{key} = {value!r}"
        for key, value in nonlin.items()
        if key != "inplace" and (key, value) != ("negative_slope", 0.01)
    ]
    return problems


def _check(plans: Plans, name: str) -> None:
    """Everything of a configuration that names something: preprocessing, normalisation, resampling."""
    entry = plans.resolved(name)
    preprocessor = entry.get("preprocessor_name", "DefaultPreprocessor")
    if preprocessor != "DefaultPreprocessor":
        raise PlansError(f"configuration {name}: the preprocessor {preprocessor} is not available")
    for scheme in entry["normalization_schemes"]:
        if scheme not in SCHEMES:
            raise PlansError(
                f"configuration {name}: the normalisation {scheme} is not available (known: {', '.join(SCHEMES)})"
            )
    for role in _ROLES:
        function = entry.get(f"resampling_fn_{role}", RESAMPLING_FUNCTION)
        if function != RESAMPLING_FUNCTION:
            raise PlansError(f"configuration {name}: the resampling function {function} is not available")
        for key, value in entry[f"resampling_fn_{role}_kwargs"].items():
            usual = key == "separate_z_anisotropy_threshold" and float(value) == _SEPARATE_Z_THRESHOLD
            if key not in _RESAMPLING_DEFAULTS and not usual:
                raise PlansError(f"configuration {name}: resampling with {key} = {value!r} is not available")
    configuration = plans.configuration(name)
    network = configuration.architecture
    if max((*network.blocks_per_stage, *network.convs_per_stage_decoder), default=0) > _BLOCKS_MAX:
        raise PlansError(f"configuration {name}: stages of more than {_BLOCKS_MAX} blocks are not available")
    if len(configuration.normalization_schemes) != len(configuration.use_mask_for_norm):
        raise PlansError(f"configuration {name}: normalization_schemes and use_mask_for_norm have different lengths")


def _known_networks() -> str:
    return ", ".join(text.rsplit(".", 1)[-1] for text in NETWORK_CLASS_NAMES.values())
