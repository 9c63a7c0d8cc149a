"""Plans: the whole JSON of random datasets and of some on the edges of rules, by all planners (method 3).

python -m benchmarks.peer.compare_planning [--count N]
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from benchmarks.peer.common import Table, quiet, workplace
from benchmarks.peer.random_datasets import ALL, MEMORY_GB, PLANNERS, RandomDataset, edge_dataset, random_dataset
from segwright.planning import make_plans

READER = "SimpleITKIO"
EDGES = 120
FAILURES_ALLOWED = 0.01
"""Share of the random datasets the peer may fail on: those are not compared."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--count", type=int, default=ALL, help=f"datasets (default {ALL})")
    options = parser.parse_args()
    table = Table("Planning")
    counted, wrong, configurations = Counter[str](), Counter[str](), Counter[str]()
    failed: list[str] = []
    with workplace() as work:
        made = [random_dataset(number) for number in range(options.count)]
        made += [edge_dataset(number) for number in range(min(options.count, EDGES))]
        for dataset in made:
            try:
                theirs = peer_plans(dataset, work)
            except ArithmeticError as error:  # a target spacing beyond the image leaves it no voxels to plan with
                planned = ", ".join(our_plans(dataset)["configurations"])
                failed.append(f"{dataset.name}: {error!r}; segwright plans {planned}")
                continue
            found = differences(our_plans(dataset), theirs)
            for group in (dataset.kind, dataset.settings.planner, f"{dataset.settings.gpu_memory_gb} GB"):
                counted[group] += 1
                wrong[group] += bool(found)
            configurations.update(list(theirs["configurations"]))
            for difference in found[:5]:
                print(f"{dataset.name} ({dataset.kind}, {dataset.settings}): {difference}", flush=True)
    for group, count in counted.items():
        known = group in PLANNERS or group in {f"{memory} GB" for memory in MEMORY_GB}
        what = f"{group.replace('None GB', 'planner default of memory')}, {count} datasets: plans that differ"
        table.row(what if known else f"fingerprints {what}", wrong[group], 0)
    listed = ", ".join(f"{count} {name}" for name, count in configurations.items())
    table.report("all: configurations compared", f"{configurations.total()} ({listed})")
    table.report("all: datasets the peer's planner fails on", "; ".join([str(len(failed)), *failed]))
    table.row("all: share of datasets the peer's planner fails on", len(failed) / len(made), FAILURES_ALLOWED)
    table.close()


def our_plans(dataset: RandomDataset) -> dict[str, Any]:
    """As the file holds them, without segwright's own key."""
    plans, _ = make_plans(dataset.fingerprint, dataset.facts, dataset.settings, dataset.name, READER)
    content = json.loads(json.dumps(plans.to_json()))
    content.pop("segwright")
    return content


def peer_plans(dataset: RandomDataset, work: Path) -> dict[str, Any]:
    """The file the peer's planner writes."""
    from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
    from nnunetv2.experiment_planning.experiment_planners.residual_unets import residual_encoder_unet_planners as res

    planners = dict(
        zip(
            PLANNERS,
            (
                ExperimentPlanner, res.ResEncUNetPlanner, res.nnUNetPlannerResEncM, res.nnUNetPlannerResEncL,
                res.nnUNetPlannerResEncXL,
            ),
            strict=True,
        )
    )  # fmt: skip
    raw, preprocessed = (work / f"nnUNet_{kind}" / dataset.name for kind in ("raw", "preprocessed"))
    raw.mkdir()
    preprocessed.mkdir()
    one_case = {"dataset": {"a": {"images": ["a.nii.gz"], "label": "b.nii.gz"}}}
    (raw / "dataset.json").write_text(
        json.dumps({**dataset.facts, **one_case, "overwrite_image_reader_writer": READER})
    )
    (preprocessed / "dataset_fingerprint.json").write_text(json.dumps(dataset.fingerprint))
    settings, options = dataset.settings, {}
    if settings.gpu_memory_gb is not None:
        options["gpu_memory_target_in_gb"] = settings.gpu_memory_gb
    with quiet(), torch.device("meta"):  # the peer builds a network for every patch it tries; only shapes matter
        planner = planners[settings.planner](
            dataset.name, overwrite_target_spacing=settings.spacing_mm, suppress_transpose=not settings.transpose,
            **options,
        )  # fmt: skip
        planner.plan_experiment()
    return json.loads((preprocessed / f"{planner.plans_identifier}.json").read_text())


def differences(ours: Any, theirs: Any, where: str = "") -> list[str]:
    """Places where two JSON values differ, types and the order of keys included."""
    if type(ours) is not type(theirs):
        return [f"{where}: {ours!r} instead of {theirs!r}"]
    if isinstance(ours, dict):
        found = [] if list(ours) == list(theirs) else [f"{where}: keys {list(ours)} instead of {list(theirs)}"]
        return found + [
            d for key in ours.keys() & theirs.keys() for d in differences(ours[key], theirs[key], f"{where}/{key}")
        ]
    if isinstance(ours, list):
        if len(ours) != len(theirs):
            return [f"{where}: {ours} instead of {theirs}"]
        return [d for n, pair in enumerate(zip(ours, theirs, strict=True)) for d in differences(*pair, f"{where}[{n}]")]
    return [] if ours == theirs else [f"{where}: {ours!r} instead of {theirs!r}"]


if __name__ == "__main__":
    main()
