"""Why every planned value is what it is: one sentence each, with its numbers, for ``reasons.md``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from segwright.planning.low_resolution import COVERED_ENOUGH, MIN_VOXEL_RATIO, LowResolution
from segwright.planning.network_plan import MAX_EXTENT_2D, MAX_EXTENT_3D, MIN_BATCH, Budget, NetworkPlan
from segwright.planning.normalization import MASK_BELOW, SCHEMES
from segwright.planning.spacing import ANISOTROPY, TargetSpacing
from segwright.planning.text import count, listing, millimetres, millions, percent, sizes
from segwright.planning.topology import AXIS_RATIO, MIN_EDGE

DATASET = "dataset"
"""Heading of the reasons that hold for all configurations."""


@dataclass(frozen=True)
class Reason:
    """Why one value of one configuration (or of the whole dataset) was chosen."""

    configuration: str
    field: str
    sentence: str


@dataclass(frozen=True)
class Reasons:
    """All reasons of one set of plans, in the order they were decided."""

    dataset_name: str
    planner: str
    items: tuple[Reason, ...]

    def with_more(self, items: Sequence[Reason]) -> Reasons:
        """Append reasons; one about a value replaces the earlier one about the same value."""
        renewed = {(item.configuration, item.field) for item in items}
        kept = tuple(item for item in self.items if (item.configuration, item.field) not in renewed)
        return replace(self, items=(*kept, *items))

    def of(self, configuration: str, field: str) -> str:
        """The sentence about one value, or an empty string."""
        for item in self.items:
            if (item.configuration, item.field) == (configuration, field):
                return item.sentence
        return ""

    def to_markdown(self) -> str:
        """``reasons.md``: one section for the dataset and one a configuration."""
        lines = [
            f"# Why these plans: {self.dataset_name}",
            "",
            f"Planned by {self.planner}. Axes are in planned order (the transposed order, if there is one); "
            "sizes are in voxels, spacings in millimetres.",
        ]
        order = list(dict.fromkeys(item.configuration for item in self.items))
        for section in order:
            lines += ["", f"## {'All configurations' if section == DATASET else section}", ""]
            lines += [f"- **{item.field}:** {item.sentence}" for item in self.items if item.configuration == section]
        return "\n".join(lines) + "\n"


def dataset_reasons(
    num_cases: int,
    target: TargetSpacing,
    transpose_forward: tuple[int, ...],
    median_shape: tuple[float, ...],
    transpose: bool,
) -> list[Reason]:
    """Spacing, axis order and median shape (method 3.1 to 3.3)."""
    return [
        Reason(DATASET, "spacing", _spacing_sentence(target)),
        Reason(DATASET, "transpose", _transpose_sentence(target.spacing_mm, transpose_forward, transpose)),
        Reason(
            DATASET,
            "median image",
            f"{sizes(median_shape)}: the median over {count(num_cases, 'training case')} after cropping to non-zero "
            f"and resampling to the target spacing (before resampling: {sizes(target.median_shape)}, image axes).",
        ),
    ]


def normalization_reasons(
    channel_names: Sequence[str], schemes: Sequence[str], masks: Sequence[bool], median_relative_size: float
) -> list[Reason]:
    """One sentence a channel (method 3.9)."""
    explanation = {
        "CTNormalization": "intensities are clipped to the 0.5 and 99.5 percentiles of the foreground of all cases, "
        "then the foreground mean is subtracted and divided by its standard deviation",
        "NoNormalization": "values stay as they are",
        "ZScoreNormalization": "each image is brought to mean 0 and standard deviation 1 by itself",
        "RescaleTo01Normalization": "each image is stretched to 0..1",
        "RGBTo01Normalization": "values 0..255 are divided by 255",
    }
    reasons = []
    for channel, (name, scheme, mask) in enumerate(zip(channel_names, schemes, masks, strict=True)):
        known = name.casefold() in SCHEMES
        why = f"the channel is named {name!r}" if known else f"the name {name!r} asks for nothing else"
        sentence = f"{scheme}, because {why}: {explanation[scheme]}."
        if scheme == "ZScoreNormalization":
            relation, where = ("below", "inside the non-zero mask only") if mask else ("not below", "over all voxels")
            sentence += (
                f" Statistics are taken {where}: cropping to non-zero leaves {percent(median_relative_size)} of the "
                f"median image, {relation} {percent(MASK_BELOW)}."
            )
        reasons.append(Reason(DATASET, f"normalization of channel {channel}", sentence))
    return reasons


def network_reasons(name: str, plan: NetworkPlan, budget: Budget) -> list[Reason]:
    """Spacing, size, patch, network and batch of one configuration (method 3.4 to 3.8, 3.12)."""
    return [
        Reason(name, "spacing", f"{millimetres(plan.spacing_mm)}."),
        Reason(name, "median image", f"{sizes(plan.median_shape)} voxels at this spacing."),
        Reason(name, "patch", patch_sentence(plan, budget)),
        Reason(name, "batch size", batch_sentence(plan, budget)),
        *topology_reasons(name, plan, budget),
        Reason(name, "resampling", _resampling_sentence(plan.spacing_mm)),
    ]


def patch_sentence(plan: NetworkPlan, budget: Budget) -> str:
    """How the patch came about and how much memory it needs."""
    divisors = plan.topology.divisors
    same = len(set(divisors)) == 1
    multiples = f"multiples of {divisors[0]}" if same else f"multiples of {listing(divisors)}"
    limit = budget.limits.max_patch_size
    exponent = "2" if plan.is_2d else "3"
    extent = MAX_EXTENT_2D if plan.is_2d else MAX_EXTENT_3D
    if plan.clipped_patch == plan.median_shape:
        start = f"the median image {sizes(plan.median_shape)}"
    else:
        start = f"{sizes(plan.isotropic_patch)} ({extent}^{exponent} voxels, equally long in millimetres)"
        if any(edge > bound for edge, bound in zip(plan.isotropic_patch, plan.median_shape, strict=True)):
            start += f" cut to the median image {sizes(plan.median_shape)}"
    if limit is not None and any(edge > limit for edge in plan.median_shape):
        start += f", cut to max_patch_size {limit},"
    if plan.reductions:
        sentence = (
            f"{sizes(plan.patch_size)}: started as {start}, legal size {sizes(plan.first_patch)}, and shortened "
            f"{count(plan.reductions, 'time')} along the axis longest relative to the median image until it fit; "
            f"{multiples}"
        )
    else:
        verb = "rounded up" if limit is None else "rounded"
        sentence = f"{sizes(plan.patch_size)}: {start} {verb} to {multiples}"
    return f"{sentence}; {_memory_clause(plan, budget)}."


def batch_sentence(plan: NetworkPlan, budget: Budget) -> str:
    """Which of the limits decided the batch size."""
    reference_batch = budget.reference_batch(plan.is_2d)
    memory = (
        f"memory allows {plan.batch_by_memory} "
        f"({millions(plan.reference)} / {millions(plan.entries)} million x {reference_batch})"
    )
    share = (
        f"{percent(budget.numbers.max_share)} of the dataset's {millions(budget.dataset_voxels)} million voxels "
        f"is {_patches(plan.batch_by_share)}"
    )
    if plan.batch_size > min(plan.batch_by_memory, plan.batch_by_share):
        return f"{plan.batch_size}: the least allowed, {MIN_BATCH}; {memory}, and {share}."
    if plan.batch_by_share < plan.batch_by_memory:
        return f"{plan.batch_size}: {share}, the most a batch may cover; {memory}."
    return f"{plan.batch_size}: {memory}; {share}, the most a batch may cover."


def topology_reasons(name: str, plan: NetworkPlan, budget: Budget) -> list[Reason]:
    """Stages, kernels and features (method 3.4, 3.7)."""
    topology, architecture = plan.topology, plan.architecture
    limited = budget.limits.max_stages is not None and topology.n_stages == budget.limits.max_stages
    stop = (
        f"max_stages {budget.limits.max_stages} is reached"
        if limited
        else f"no axis can be halved again (an edge must stay at least {MIN_EDGE} long)"
    )
    stages = (
        f"{topology.n_stages}: the axes are halved {listing(topology.pools)} times, down to "
        f"{sizes(topology.bottleneck_size)}, until {stop}"
        + (
            f"; axes whose spacings differ by a factor of {AXIS_RATIO:g} or more are not halved together."
            if len(set(topology.pools)) > 1
            else "."
        )
    )
    flat = [stage for stage, kernel in enumerate(topology.kernels) if 1 in kernel]
    if flat:
        axes = sorted({axis for stage in flat for axis, edge in enumerate(topology.kernels[stage]) if edge == 1})
        first = "stage" if len(flat) == 1 else f"{len(flat)} stages"
        kernels = (
            f"3 along every axis, but 1 along axis {listing(axes)} in the first {first}, where the spacing is "
            f"{AXIS_RATIO:g} or more times that of the finest axis ({millimetres(plan.spacing_mm)})."
        )
    else:
        kernels = (
            f"3 along every axis: the spacings ({millimetres(plan.spacing_mm)}) differ by less than a factor of 2."
        )
    limit = budget.limits.max_features_2d if plan.is_2d else budget.limits.max_features_3d
    blocks = "residual blocks" if architecture.kind == "residual_unet" else "convolutions"
    decoder = architecture.convs_per_stage_decoder
    return [
        Reason(name, "stages", stages),
        Reason(name, "kernels", kernels),
        Reason(
            name,
            "features",
            f"{listing(architecture.features_per_stage)}: {architecture.features_per_stage[0]} in the first stage, "
            f"doubled with each, at most {limit}.",
        ),
        Reason(
            name,
            "network",
            f"{architecture.kind} with {listing(architecture.blocks_per_stage)} {blocks} per encoder stage and "
            f"{listing(decoder) if decoder else 'no'} convolutions per decoder stage: fixed by the planner.",
        ),
    ]


def low_resolution_reasons(low: LowResolution) -> list[Reason]:
    """Why there is, or is not, a low-resolution configuration (method 3.10)."""
    covered = f"the patch covers {percent(low.full_coverage)} of the median image"
    if low.plan is None:
        sentence = f"no: {covered}, not less than {percent(COVERED_ENOUGH)}, so one patch sees enough context."
        dice = "no: there is no 3d_lowres, every sample's Dice counts by itself."
    elif not low.kept:
        sentence = (
            f"no: {covered}, less than {percent(COVERED_ENOUGH)}, but at {millimetres(low.plan.spacing_mm)}, where it "
            f"would cover enough, the image has only {low.voxel_ratio:.2f} times fewer voxels "
            f"({MIN_VOXEL_RATIO} needed)."
        )
        dice = "no: there is no 3d_lowres, every sample's Dice counts by itself."
    else:
        sentence = (
            f"yes: at full resolution {covered}, less than {percent(COVERED_ENOUGH)}. The spacing was raised in "
            f"{low.steps} steps of 3 %, finest axes first, to {millimetres(low.plan.spacing_mm)}, where the patch "
            f"covers {percent(low.coverage)} and the image has {low.voxel_ratio:.2f} times fewer voxels "
            f"({MIN_VOXEL_RATIO} needed)."
        )
        dice = "yes: patches see a small part of the image, so Dice is computed over the whole batch."
    return [Reason("3d_fullres", "low resolution", sentence), Reason("3d_fullres", "batch Dice", dice)]


def low_resolution_dice() -> list[Reason]:
    """Batch Dice of 3d_lowres (method 3.10)."""
    return [Reason("3d_lowres", "batch Dice", "no: patches see enough context for a Dice of each sample by itself.")]


def cascade_reasons() -> list[Reason]:
    """What hangs on a low-resolution configuration."""
    return [
        Reason(
            "3d_cascade_fullres",
            "inherits from",
            "3d_fullres, with the segmentation of 3d_lowres as additional input channels.",
        ),
    ]


def flat_reasons(median_shape: Sequence[float]) -> list[Reason]:
    """What is special about 2d (method 3.11)."""
    slices = "Slices are taken across the first axis, which is not resampled."
    if median_shape[0] == 1:
        slices = "The images are two-dimensional, so it is the only configuration."
    return [
        Reason("2d", "slices", slices),
        Reason("2d", "batch Dice", "yes: many slices show few labels, so Dice is computed over the whole batch."),
    ]


def _patches(number: int) -> str:
    return {0: "less than a patch", 1: "1 patch"}.get(number, f"{number} patches")


def _memory_clause(plan: NetworkPlan, budget: Budget) -> str:
    needed = plan.entries
    clause = f"{millions(needed)} of {millions(plan.reference)} million feature-map entries"
    if budget.limits.gpu_memory_gb is not None:
        clause += f" for {budget.limits.gpu_memory_gb:g} GB"
    if plan.is_2d and budget.numbers.scale_by_batch:
        share = budget.reference_batch(True) // 2
        return f"{clause} (a sample may use {share} times the reference in 2-D)"
    return clause


def _spacing_sentence(target: TargetSpacing) -> str:
    spacing = millimetres(target.spacing_mm)
    if target.overridden:
        return f"{spacing} (image axes): given by you; the median is {millimetres(target.median_mm)}."
    if target.anisotropic_axis is None:
        return f"{spacing} (image axes): the median over the cases."
    axis = target.anisotropic_axis
    return (
        f"{spacing} (image axes): the median is {millimetres(target.median_mm)}, and axis {axis} "
        f"is more than {ANISOTROPY:g} times coarser and {ANISOTROPY:g} times shorter than the others "
        f"({sizes(target.median_shape)} voxels), so it takes the 10th percentile, though never finer than the others."
    )


def _transpose_sentence(spacing_mm: Sequence[float], forward: tuple[int, ...], transpose: bool) -> str:
    if not transpose:
        return "the axes stay in the images' order, as you asked."
    coarsest = forward[0]
    if forward == (0, 1, 2):
        return f"the axes stay in the images' order: none is coarser than axis 0 ({spacing_mm[0]:.4g} mm)."
    return (
        f"image axes in the order {listing(forward)}: axis {coarsest} is the coarsest ({spacing_mm[coarsest]:.4g} mm) "
        "and comes first, so that 2-D slices lie across it."
    )


def _resampling_sentence(spacing_mm: Sequence[float]) -> str:
    sentence = "images by cubic splines, labels and logits linearly"
    if len(spacing_mm) == 3:
        sentence += "; along an axis more than 3 times coarser than another by nearest neighbour"
    return sentence + "."
