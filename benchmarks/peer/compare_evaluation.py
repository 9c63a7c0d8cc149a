"""Metrics, choice of postprocessing, ensembles, selection on folders of predictions (method 11, 12, 10.7)."""

from __future__ import annotations

import contextlib
import json
import math
import multiprocessing.pool
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage
from tests.parity.candidates import NOISE, selected

from benchmarks.peer.common import SEED, Planned, Table, largest_difference, quiet, workplace
from benchmarks.peer.peer_selection import peer_selection
from benchmarks.peer.small import phantom
from segwright.core.files import file_digest
from segwright.core.labels import key_from_text
from segwright.evaluation.metrics import METRICS
from segwright.evaluation.summary import evaluate_folders
from segwright.images.readers import read_label, write_label
from segwright.inference.finished import write_manifest
from segwright.selection.components import apply_rules
from segwright.selection.folders import ensemble_folders
from segwright.selection.postprocessing import determine_postprocessing

PRESETS = ("plain", "regions", "ignore", "regions_ignore", "2d")
CASES, SEEDS = 4, 6


def main() -> None:
    table = Table("Evaluation, postprocessing, ensembles, selection")
    for preset in PRESETS:
        with workplace() as work, threads_for_processes():
            plan = phantom(preset, work, CASES)
            for seed in range(SEEDS):
                folder = work / f"predictions_{seed}"
                make_predictions(plan, folder, seed)
                compare_folder(plan, folder, f"{plan.dataset.name}, set {seed}", table)
            compare_ensemble(plan, work, table)
            compare_selection(plan, work, table)
    table.close()


def compare_folder(plan: Planned, folder: Path, name: str, table: Table) -> None:
    references, reader = plan.dataset.folder / "labelsTr", plan.plans.reader
    ours = evaluate_folders(references, folder, plan.dataset.folder / "dataset.json", folder / "ours.json").to_json()
    manifest = folder / "manifest.json"
    files = {case.case_id: folder / f"{case.case_id}{plan.dataset.file_ending}" for case in plan.dataset.training}
    write_manifest(
        manifest, folder, {case: {"file": path, "digest": file_digest(path)} for case, path in files.items()}
    )
    found = determine_postprocessing([manifest], plan.dataset, reader, "full", folder / "postprocessing_ours.json")

    from nnunetv2.postprocessing.remove_connected_components import determine_postprocessing as peers_choice

    with quiet():
        _, arguments = peers_choice(str(folder), str(references), plan.plans_json, plan.facts, 2, True)
    peers = json.loads((folder / "summary.json").read_text())
    table.row(f"{name}: counts and metrics", summary_difference(ours, peers), 1e-12)
    theirs = [rule_values(entry["labels_or_regions"]) for entry in arguments]
    mine = [rule_values(list(rule.labels_or_regions)) for rule in found.rules]
    accepted = f"{len(theirs)} of {len(found.trials)} rules accepted"
    table.row(f"{name}, {accepted}: decisions about postprocessing that differ", float(mine != theirs), 0)
    changed = 0
    for path in files.values():
        after = apply_rules(read_label(path, reader).array_zyx, found.rules)
        changed += int(np.count_nonzero(after != read_label(folder / "postprocessed" / path.name, reader).array_zyx))
    table.row(f"{name}: voxels after postprocessing", changed, 0)


def rule_values(labels_or_regions: Any) -> set[int]:
    """All label values one rule of the peer or of segwright looks at, as one mask."""
    entries = labels_or_regions if isinstance(labels_or_regions, list) else [labels_or_regions]
    return {int(value) for entry in entries for value in (entry if isinstance(entry, tuple) else (entry,))}


def compare_ensemble(plan: Planned, work: Path, table: Table) -> None:
    """Three folders of random probabilities."""
    rng, ending, outputs = np.random.default_rng(SEED), plan.dataset.file_ending, plan.dataset.labels.num_outputs
    reader = plan.plans.reader
    folders = [work / f"member_{number}" for number in range(3)]
    for folder in folders:
        folder.mkdir()
        (folder / "dataset.json").write_text(json.dumps(plan.facts))
        for case in plan.dataset.training:
            assert case.label_file is not None
            label = read_label(case.label_file, reader)
            probabilities = rng.dirichlet(np.ones(outputs), label.array_zyx.shape).astype(np.float32)
            np.savez_compressed(folder / f"{case.case_id}.npz", probabilities=np.moveaxis(probabilities, -1, 0))
            write_label(folder / f"{case.case_id}{ending}", label.array_zyx, label.geometry, reader)
            (folder / f"{case.case_id}.pkl").write_bytes(pickle.dumps(peer_properties(plan, case.label_file)))
    ensemble_folders(folders, work / "ours", save_probabilities=True)

    from nnunetv2.ensembling.ensemble import ensemble_folders as peers_ensemble

    with quiet():
        peers_ensemble([str(folder) for folder in folders], str(work / "peers"), True, 2, plan.facts, plan.plans_json)
    voxels, probability = 0, 0.0
    for case in plan.dataset.training:
        name = f"{case.case_id}{ending}"
        mine, theirs = (read_label(work / who / name, reader).array_zyx for who in ("ours", "peers"))
        voxels += int(np.count_nonzero(mine != theirs))
        with (
            np.load(work / "ours" / f"{case.case_id}.npz") as a,
            np.load(work / "peers" / f"{case.case_id}.npz") as b,
        ):
            probability = max(probability, largest_difference(a["probabilities"], b["probabilities"]))
    table.row(f"{plan.dataset.name}: ensemble, voxels", voxels, 0)
    table.row(f"{plan.dataset.name}: ensemble, probabilities", probability, 1e-6)


def compare_selection(plan: Planned, work: Path, table: Table) -> None:
    """The best of three configurations and their pairs, and its postprocessing: once a pair, one alone, and a tie."""
    for number, (winner, noise) in enumerate(NOISE.items()):
        ours = selected(plan.dataset, plan.plans.reader, noise, work / f"selection_{number}")
        theirs = peer_selection(plan.dataset, plan.plans_json, noise, f"Dataset{950 + number}_Selection")
        name = f"{plan.dataset.name}, best {'+'.join(theirs['members'])} ({winner})"
        scores = [list(found["scores"].values()) for found in (ours, theirs)]
        same_order = list(ours["scores"]) == list(theirs["scores"])
        table.row(f"{name}: scores of candidates", largest_difference(*scores) if same_order else math.inf, 1e-12)
        table.row(f"{name}: selections that differ", float(ours["members"] != theirs["members"]), 0)
        table.row(f"{name}: postprocessing of the selected that differs", float(ours["rules"] != theirs["rules"]), 0)
        after = abs(ours["score_after"] - theirs["score_after"])
        table.row(f"{name}: score after postprocessing of the selected", after, 1e-12)


def peer_properties(plan: Planned, label_file: Path) -> dict[str, Any]:
    """What the peer keeps of an image to write a label map on its grid."""
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    _, properties = PlansManager(plan.plans_json).image_reader_writer_class().read_seg(str(label_file))
    return properties


def make_predictions(plan: Planned, folder: Path, seed: int) -> None:
    """Damaged copies of the references: shifted, with islands; every second set also with split structures."""
    folder.mkdir()
    rng, reader = np.random.default_rng(SEED + seed), plan.plans.reader
    foreground = plan.dataset.labels.foreground_labels
    for number, case in enumerate(plan.dataset.training):
        assert case.label_file is not None
        label = read_label(case.label_file, reader)
        wrong = np.roll(label.array_zyx, int(rng.integers(-1, 2)), axis=int(rng.integers(1, 3))).copy()
        wrong[wrong > foreground[-1]] = foreground[0]  # the ignore label
        islands = ndimage.gaussian_filter(rng.normal(size=wrong.shape), [min(1.5, edge - 1) for edge in wrong.shape])
        spots = islands > np.quantile(islands, 0.99 if seed % 3 else 0.999)
        wrong[spots & (wrong == 0)] = foreground[seed % len(foreground)]
        if seed % 2:
            wrong[:, wrong.shape[1] // 2 - 1 + number % 3] = 0
        if seed == SEEDS - 1:
            wrong[wrong == foreground[-1]] = 0
        write_label(folder / f"{case.case_id}{plan.dataset.file_ending}", wrong, label.geometry, reader)


def summary_difference(ours: dict[str, Any], peers: dict[str, Any]) -> float:
    """Largest difference of any number; NaN equals NaN."""
    worst = max(distance(ours["foreground_mean"], peers["foreground_mean"]), 0.0)
    pairs = [(ours["mean"], peers["mean"])]
    pairs += [
        (mine["metrics"], theirs["metrics"])
        for mine, theirs in zip(ours["metric_per_case"], peers["metric_per_case"], strict=True)
    ]
    for mine, theirs in pairs:
        found = {_normal(text): numbers for text, numbers in theirs.items()}
        own = {_normal(text): numbers for text, numbers in mine.items()}
        if found.keys() != own.keys():
            return math.inf
        worst = max(worst, *(distance(own[key], found[key]) for key in own))
    return worst


def _normal(text: str) -> tuple[int, ...]:
    key = key_from_text(text)
    return key if isinstance(key, tuple) else (key,)


def distance(mine: dict[str, float], theirs: dict[str, float]) -> float:
    values = [(float(mine[metric]), float(theirs[metric])) for metric in METRICS]
    return max(
        0.0 if math.isnan(a) and math.isnan(b) else math.inf if a != a or b != b else abs(a - b) for a, b in values
    )


@contextlib.contextmanager
def threads_for_processes() -> Iterator[None]:
    """The peer starts new processes for every folder; threads do the same in a tenth of the time."""
    from nnunetv2.ensembling import ensemble
    from nnunetv2.evaluation import evaluate_predictions
    from nnunetv2.postprocessing import remove_connected_components

    class Threads:
        Pool = multiprocessing.pool.ThreadPool

        @staticmethod
        def get_context(_: str) -> type:
            return Threads

    modules = (ensemble, evaluate_predictions, remove_connected_components)
    for module in modules:
        module.multiprocessing = Threads
    try:
        yield
    finally:
        for module in modules:
            module.multiprocessing = multiprocessing


if __name__ == "__main__":
    main()
