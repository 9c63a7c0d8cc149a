"""The planners by name, and the one function that makes plans from settings: :func:`make_plans`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from segwright.core.errors import PlansError
from segwright.core.plans import Plans
from segwright.core.registry import Registry
from segwright.core.settings import PlanningSettings
from segwright.planning.additions import add_configurations
from segwright.planning.checks import check_plans
from segwright.planning.experiment import PlanningInputs, plan_dataset
from segwright.planning.network_plan import PlannerNumbers
from segwright.planning.overrides import apply_overrides
from segwright.planning.pinned import read_pinned_plans
from segwright.planning.reasons import Reasons

Planner = Callable[[PlanningInputs], tuple[Plans, Reasons]]
"""What the registry holds: a function (or :class:`NnunetPlanner`) from the inputs to plans and reasons."""

PLANNERS: Registry[Planner] = Registry("planner")


@dataclass(frozen=True)
class NnunetPlanner:
    """nnU-Net v2's planner with its numbers. A plugin gets another one by ``dataclasses.replace`` of these numbers."""

    numbers: PlannerNumbers

    def __call__(self, inputs: PlanningInputs) -> tuple[Plans, Reasons]:
        return plan_dataset(inputs, self.numbers)


DEFAULT = PlannerNumbers(
    class_name="ExperimentPlanner", plans_name="nnUNetPlans", kind="plain_unet", reference_gb=8, reference_3d=560e6,
    reference_2d=85e6, max_share=0.05, encoder_blocks=(2,), decoder_convs=2, shared_plans_name="nnUNetPlans",
    scale_by_batch=True,
)  # fmt: skip
RESENC = PlannerNumbers(
    class_name="ResEncUNetPlanner", plans_name="nnUNetResEncUNetPlans", kind="residual_unet", reference_gb=8,
    reference_3d=680e6, reference_2d=135e6, max_share=0.05, encoder_blocks=(1, 3, 4, 6), decoder_convs=1,
    shared_plans_name="nnUNetPlans", scale_by_batch=False,
)  # fmt: skip
RESENC_M = replace(
    RESENC, class_name="nnUNetPlannerResEncM", plans_name="nnUNetResEncUNetMPlans", max_share=1.0
)  # fmt: skip
RESENC_L = replace(
    RESENC_M, class_name="nnUNetPlannerResEncL", plans_name="nnUNetResEncUNetLPlans", reference_gb=24,
    reference_3d=2100e6, reference_2d=380e6,
)  # fmt: skip
RESENC_XL = replace(
    RESENC_M, class_name="nnUNetPlannerResEncXL", plans_name="nnUNetResEncUNetXLPlans", reference_gb=40,
    reference_3d=3600e6, reference_2d=560e6,
)  # fmt: skip
PLANNERS.register("default")(NnunetPlanner(DEFAULT))
PLANNERS.register("resenc")(NnunetPlanner(RESENC))
PLANNERS.register("resenc_m")(NnunetPlanner(RESENC_M))
PLANNERS.register("resenc_l")(NnunetPlanner(RESENC_L))
PLANNERS.register("resenc_xl")(NnunetPlanner(RESENC_XL))


def make_plans(
    fingerprint: Mapping[str, Any],
    dataset_facts: Mapping[str, Any],
    settings: PlanningSettings,
    dataset_name: str,
    reader: str,
) -> tuple[Plans, Reasons]:
    """Plan a dataset: plan (or read pinned plans), add your own configurations, fix values of your own, check.

    Args:
        fingerprint: content of dataset_fingerprint.json.
        dataset_facts: content of dataset.json.
        reader: name of the image reader (method 1.3).

    Raises:
        PlansError, SettingsError: what is wrong with the inputs or the settings, and what would be right.
    """
    inputs = PlanningInputs(fingerprint, dataset_facts, settings, dataset_name, reader)
    if settings.plans_file is not None:
        plans, reasons = read_pinned_plans(inputs)
    else:
        plans, reasons = PLANNERS.get(settings.planner)(inputs)
    plans, notes = add_configurations(plans, settings.add)
    reasons = reasons.with_more(notes)
    plans, notes = apply_overrides(plans, inputs, numbers_of(plans))
    reasons = reasons.with_more(notes)
    try:
        check_plans(plans, inputs.channel_names)
    except PlansError as problem:
        if settings.plans_file is None:
            raise
        raise PlansError(f"planning.plans_file {settings.plans_file}: {problem}") from None
    return plans, reasons


def numbers_of(plans: Plans) -> PlannerNumbers:
    """The numbers of the planner that made these plans; of the nearest one where it is not known by name."""
    for name in PLANNERS.names():
        planner = PLANNERS.get(name)
        if isinstance(planner, NnunetPlanner) and planner.numbers.class_name == plans.planner:
            return planner.numbers
    kinds = {plans.configuration(name).architecture.kind for name in plans.configurations}
    return RESENC if "residual_unet" in kinds else DEFAULT
