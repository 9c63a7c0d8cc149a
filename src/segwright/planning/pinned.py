"""Plans taken from a file instead of being made: for fine-tuning, federated work and reproducing a paper."""

from __future__ import annotations

import logging
from dataclasses import replace

from segwright.core.errors import PlansError
from segwright.core.files import read_json
from segwright.core.plans import Plans
from segwright.planning.experiment import PlanningInputs, made_for
from segwright.planning.reasons import DATASET, Reason, Reasons

log = logging.getLogger(__name__)


def read_pinned_plans(inputs: PlanningInputs) -> tuple[Plans, Reasons]:
    """Read ``planning.plans_file`` for this dataset (method 14.4).

    Only the dataset's name and reader are replaced. Other channel names or labels than those the plans were made for
    (if they say so) are reported but allowed: fine-tuning to other labels is what plans are pinned for.

    Raises:
        DamagedFileError, PlansError: the file cannot be read or is not a plans file.
    """
    path = str(inputs.settings.plans_file)
    try:
        plans = Plans.from_json(read_json(path))
    except PlansError as problem:
        raise PlansError(f"planning.plans_file {path}: {problem}") from None
    notes = [
        Reason(
            DATASET,
            "plans file",
            f"all values are taken from the plans {plans.plans_name} made by {plans.planner} for {plans.dataset_name}; "
            f"only the name and the reader ({inputs.reader}) are this dataset's.",
        )
    ]
    here = made_for(inputs.dataset_facts, inputs.channel_names)
    for key, meaning in (("channel_names", "channels"), ("labels", "labels")):
        there = plans.extras.get(key)
        if there is not None and there != here[key]:
            notes.append(
                Reason(
                    DATASET,
                    f"{meaning} of the plans file",
                    f"the plans were made for {there}, this dataset has {here[key]}; this dataset's are used.",
                )
            )
            log.warning("%s: %s", path, notes[-1].sentence)
    plans = replace(plans, dataset_name=inputs.dataset_name, reader=inputs.reader, extras={**plans.extras, **here})
    return plans, Reasons(inputs.dataset_name, plans.planner, tuple(notes))
