"""Plans must hold together, whoever wrote them: planner, user or a pinned file."""

from __future__ import annotations

from collections.abc import Sequence

from segwright.core.architecture import NETWORK_CLASS_NAMES
from segwright.core.errors import PlansError
from segwright.core.plans import Configuration, Plans
from segwright.planning.additions import NAME, RESERVED_NAMES
from segwright.planning.text import millimetres, sizes


def check_plans(plans: Plans, channel_names: Sequence[str]) -> None:
    """Check every configuration against the others and against the dataset's channels.

    Raises:
        PlansError: names the configuration, the value, and what would be right.
    """
    if not plans.configurations:
        raise PlansError("plans: there is no configuration")
    if sorted(plans.transpose_forward) != [0, 1, 2] or sorted(plans.transpose_backward) != [0, 1, 2]:
        raise PlansError("plans: transpose_forward and transpose_backward must each hold 0, 1 and 2 once")
    for name in plans.configurations:
        if not NAME.fullmatch(name) or name in RESERVED_NAMES:
            raise PlansError(
                f"plans: the configuration name {name!r} cannot be used; letters, digits and _ are allowed, and not "
                f"{', '.join(RESERVED_NAMES)}"
            )
        configuration = plans.configuration(name)
        _check_channels(configuration, plans, channel_names)
        _check_network(configuration)
        _check_stages(configuration, plans)


def training_problem(plans: Plans, name: str) -> str | None:
    """Why a configuration that v2's planner makes, too, cannot be trained; None if it can.

    Images that are too small to halve get a network of one stage, which is no U-Net. v2 plans it; its trainer then ends
    with an IndexError. The plans stay as v2 writes them; only who trains this configuration is stopped.
    """
    configuration = plans.configuration(name)
    network = configuration.architecture
    if network.n_stages > 1 or network.kind not in NETWORK_CLASS_NAMES:  # a plugin's network may be of any depth
        return None
    enough = [16] * network.dimensions
    return (
        f"{plans.dataset_name}: configuration {name} cannot be trained: its patch of {sizes(configuration.patch_size)} "
        f"voxels (the median image has {sizes(configuration.median_size_voxels)} at "
        f"{millimetres(configuration.spacing_mm)}) is too small to be halved even once, which takes 8 voxels along two "
        f"axes or 12 along one. Let images be padded to a larger patch (planning.overrides: {{{name}: {{patch_size: "
        f"{enough}}}}}), plan with a finer spacing (planning.spacing_mm), or train other configurations only "
        "(training.configurations)"
    )


def _check_channels(configuration: Configuration, plans: Plans, channel_names: Sequence[str]) -> None:
    name, schemes = configuration.name, configuration.normalization_schemes
    if len(schemes) != len(channel_names) or len(configuration.use_mask_for_norm) != len(schemes):
        raise PlansError(
            f"plans: configuration {name} normalizes {len(schemes)} channels, but the dataset has {len(channel_names)} "
            f"({', '.join(channel_names)}); use plans made for these channels"
        )
    for channel, scheme in enumerate(schemes):
        if scheme == "CTNormalization" and channel >= len(plans.intensities):
            raise PlansError(f"plans: configuration {name} needs the foreground intensities of channel {channel}")


def _check_network(configuration: Configuration) -> None:
    name, patch, network = configuration.name, configuration.patch_size, configuration.architecture
    dimensions = len(patch)
    if dimensions not in (2, 3) or len(configuration.spacing_mm) != dimensions or network.dimensions != dimensions:
        raise PlansError(
            f"plans: configuration {name}: patch_size {list(patch)}, spacing {list(configuration.spacing_mm)} and the "
            f"{network.dimensions}-D network do not have the same number of axes"
        )
    if configuration.batch_size < 1 or min(patch) < 1 or not all(mm > 0 for mm in configuration.spacing_mm):
        raise PlansError(f"plans: configuration {name}: batch_size, patch_size and spacing must be positive")
    if not len(network.kernel_sizes) == len(network.strides) == len(network.blocks_per_stage) == network.n_stages:
        raise PlansError(f"plans: configuration {name}: features, kernels, strides and blocks differ in number")
    for axis, edge in enumerate(patch):
        divisor = 1
        for stride in network.strides:
            divisor *= stride[axis]
        if edge % divisor:
            below, above = edge // divisor * divisor, (edge // divisor + 1) * divisor
            choice = f"{below} or {above}" if below else str(above)
            raise PlansError(
                f"plans: configuration {name}: patch_size {sizes(patch)} cannot be halved as the network needs: "
                f"axis {axis} must be a multiple of {divisor}, such as {choice} "
                "(planning.overrides changes patch and network together)"
            )


def _check_stages(configuration: Configuration, plans: Plans) -> None:
    seen = [configuration.name]
    current = configuration
    while current.previous_stage is not None:
        if current.previous_stage not in plans.configurations:
            raise PlansError(
                f"plans: previous_stage of {current.name} is {current.previous_stage}, which is no configuration "
                f"(there are: {', '.join(plans.configurations)})"
            )
        if current.previous_stage in seen:
            raise PlansError(
                f"plans: previous_stage goes in a circle: {' -> '.join([*seen, str(current.previous_stage)])}"
            )
        current = plans.configuration(current.previous_stage)
        seen.append(current.name)
        if current.is_2d != configuration.is_2d:
            raise PlansError(
                f"plans: {configuration.name} and its previous stage {current.name} must both be 2-D or both 3-D"
            )
