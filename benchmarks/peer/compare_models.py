"""Models across programs: exported to the peer and used with its commands, imported from the peer, and there and back.

    python -m benchmarks.peer.compare_models [DATA] [--only TEXT]

The peer runs as its users run it: its install command, then the commands in inference_instructions.txt of the zip.
It sums logits in float16; as in ``compare_prediction`` each row is measured against the peer as it is (what float16
costs) and with its sums in float32 (the tolerance). Needs ``requests`` in the peer's environment (its install command).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.peer.common import Planned, Table, quiet, workplace
from benchmarks.peer.compare_prediction import preprocess_slice_of
from benchmarks.peer.made_models import (
    PEER_SCENARIOS,
    SCENARIOS,
    PeerScenario,
    Scenario,
    input_folder,
    is_real,
    peer_model,
    planned_scenario,
    run_peer,
    run_peer_float32,
    segwright_model,
)
from benchmarks.peer.small import peer_network, peer_trainer
from segwright.core.files import file_digest
from segwright.core.slices import predict_slice
from segwright.images.readers import read_label
from segwright.networks.weights import load_weights
from segwright.sharing.model import open_model
from segwright.sharing.nnunet_v2.export_model import export_model
from segwright.sharing.nnunet_v2.import_model import import_model
from segwright.sharing.nnunet_v2.instructions_out import INFORMATION, INSTRUCTIONS, commands
from segwright.sharing.nnunet_v2.plans_out import Names
from segwright.sharing.use import predict_with_model

FLOAT16_ALLOWED, FLOAT32_ALLOWED, VOXELS_ALLOWED = 5e-3, 1e-4, 1e-5
"""1 - Dice, what float16 may cost where a network of 120 steps is unsure, and the tolerance; share of all voxels."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("data", type=Path, nargs="?", help="folder of real images; without it phantoms only")
    parser.add_argument("--only", default="", help="scenarios whose name holds this text")
    options = parser.parse_args()
    torch.set_num_threads(1)
    os.environ.update(nnUNet_def_n_proc="1", nnUNet_n_proc_DA="0")  # read when the peer is imported
    table = Table("Models")
    for scenario in (*SCENARIOS, *PEER_SCENARIOS):
        direction = "export" if isinstance(scenario, Scenario) else "import"
        if options.only not in f"{direction} {scenario.name}" or (is_real(scenario) and not options.data):
            continue
        with workplace() as work:
            plan = planned_scenario(scenario, options.data, work)
            if isinstance(scenario, Scenario):
                compare_export(scenario, plan, work, table)
            else:
                compare_import(scenario, plan, work, table)
    table.close()


def compare_export(scenario: Scenario, plan: Planned, work: Path, table: Table) -> None:
    """Export, install with the peer's command, follow the instructions; then import what was exported."""
    model, images = segwright_model(plan, scenario, work), input_folder(plan, work / "images")
    ours = predict(model, images, work / "ours")
    archive = export_model(model, work / "exported.zip")
    again = file_digest(export_model(model, work / "again.zip"))
    table.row(f"{scenario.name}: exported twice, archives that differ", again != file_digest(archive), 0)
    run_peer(f"nnUNetv2_install_pretrained_model_from_zip {archive}")
    results = Path(os.path.expandvars("$nnUNet_results")) / plan.dataset.name
    lines = [line for line in (results / INSTRUCTIONS).read_text().splitlines() if line.startswith("nnUNetv2_")]
    comparison = Comparison(plan, lines, images, ours, table)
    float16 = comparison.with_peer(f"{scenario.name}: exported", work)
    if len(lines) == 1:
        line = lines[0].replace("nnUNetv2_predict", "nnUNetv2_predict_from_modelfolder")
        line = re.sub(r"-d \S+", f"-m {next(results.glob('nnUNetTrainer__*'))}", re.sub(r"-(tr|c|p) \S+ ?", "", line))
        same = replace(comparison, ours={case: float16 / path.name for case, path in ours.items()})
        _, voxels, _ = same.differences(follow([line], images, work / "by_folder", run_peer))
        table.row(f"{scenario.name}: predict_from_modelfolder, voxels other than predict's", voxels, 0)
    table.row(f"{scenario.name}: exported, opened by the peer's trainer, weights that differ", opened(plan, results), 0)
    back = import_model(archive, work / "back")
    table.row(f"{scenario.name}: exported and imported, weights that differ", different_weights(model, back), 0)
    if scenario.prediction.tile_step == 0.5:  # else it is an option of the peer's command, no part of the zip
        files = predict(back, images, work / "ours_again")
        differing = sum(file_digest(files[case]) != file_digest(path) for case, path in ours.items())
        table.row(f"{scenario.name}: exported and imported, segmentations that differ", differing, 0)


def compare_import(scenario: PeerScenario, plan: Planned, work: Path, table: Table) -> None:
    """Import what the peer trained, from its results folder and from its own zip; then export that again."""
    results = peer_model(plan, scenario.configurations, scenario.iterations)
    images = input_folder(plan, work / "images")
    chosen = import_model(results, work / "imported", configurations=scenario.members)
    ours = predict(chosen, images, work / "ours")
    names = Names(plan.dataset.name, plan.plans.plans_name)
    information = json.loads((results / INFORMATION).read_text())["best_model_or_ensemble"]
    best = Path(information["postprocessing_file"]).parent.relative_to(results.parent).as_posix()
    with open_model(chosen) as model:
        lines = commands(model, names, best)
        table.report(f"{scenario.name}: members, rules", f"{'+'.join(model.members)}, {len(model.rules)}")
    comparison = Comparison(plan, lines, images, ours, table)
    comparison.with_peer(f"{scenario.name}: imported", work)
    run_peer(
        f"nnUNetv2_export_model_to_zip -d {names.dataset} -p {names.plans} -f 0 1 -o {work}/peers.zip"
        f" -c {' '.join(scenario.configurations)}"
    )
    from_zip = import_model(work / "peers.zip", work / "from_zip", configurations=scenario.members)
    table.row(f"{scenario.name}: imported from the zip, weights that differ", different_weights(chosen, from_zip), 0)
    shutil.move(results, work / "trained")
    run_peer(f"nnUNetv2_install_pretrained_model_from_zip {export_model(chosen, work / 'exported.zip')}")
    comparison.with_peer(f"{scenario.name}: imported and exported", work / "again")


@dataclass(frozen=True)
class Comparison:
    """segwright's segmentations, and the peer's commands that should give the same."""

    plan: Planned
    lines: list[str]
    images: Path
    ours: Mapping[str, Path]
    table: Table

    def with_peer(self, what: str, work: Path) -> Path:
        """Run the commands as they are and with float32 sums; returns the results of the first."""
        float16 = follow(self.lines, self.images, work / "float16", run_peer)
        missing, voxels, _ = self.differences(float16)
        self.table.row(f"{what}, 1 - Dice, float16 sums", missing, FLOAT16_ALLOWED)
        self.table.report(f"{what}, voxels, float16 sums", str(voxels))
        float32 = follow(self.lines, self.images, work / "float32", run_peer_float32)
        missing, voxels, share = self.differences(float32)
        self.table.row(f"{what}, 1 - Dice, float32 sums", missing, FLOAT32_ALLOWED)
        self.table.row(f"{what}, voxels of all, float32 sums", share, VOXELS_ALLOWED)
        return float16

    def differences(self, theirs: Path) -> tuple[float, int, float]:
        """1 - Dice over the voxels of all foreground labels of all cases; voxels that differ; their share of all."""
        agreeing = foreground = differing = voxels = 0
        for path in self.ours.values():
            mine, other = (read_label(file, self.plan.plans.reader) for file in (path, theirs / path.name))
            if mine.geometry != other.geometry:
                raise SystemExit(f"{path.name}: the peer's result lies on another grid")
            equal = mine.array_zyx == other.array_zyx
            agreeing += int(np.count_nonzero(equal & (mine.array_zyx > 0)))
            foreground += int(np.count_nonzero(mine.array_zyx) + np.count_nonzero(other.array_zyx))
            differing += int(np.count_nonzero(~equal))
            voxels += equal.size
        if not foreground:
            raise SystemExit("nothing was predicted, so nothing was compared")
        return 1 - 2 * agreeing / foreground, differing, differing / voxels


def predict(model: Path, images: Path, output: Path) -> dict[str, Path]:
    """segwright's own segmentations."""
    with open_model(model) as opened:
        return predict_with_model(opened, images, output, workers=1)


def follow(lines: list[str], images: Path, output: Path, run: Callable[..., None]) -> Path:
    """Run the peer's commands one after the other; returns the folder the last one wrote."""
    last = output
    for line in lines:
        words = line.split()
        folders = {word: output / word for word in words if word.startswith("OUTPUT_FOLDER")}
        run(line, {**folders, "INPUT_FOLDER": images})
        last = output / words[words.index("-o") + 1]
    return last


def opened(plan: Planned, results: Path) -> int:
    """How many tensors the peer's trainer has otherwise than the file it opened."""
    count = 0
    for path in results.glob("nnUNetTrainer__*/fold_*/checkpoint_final.pth"):
        configuration = path.parent.parent.name.split("__")[-1]
        entry = plan.plans.configuration(configuration)
        slice_ = predict_slice(plan.plans, configuration, preprocess_slice_of(plan, configuration))
        network = peer_network(entry.architecture, slice_.num_input_channels, plan.dataset.labels.num_outputs)
        trainer = peer_trainer(plan, configuration, network)
        trainer.was_initialized = True
        with quiet():
            trainer.load_checkpoint(str(path))
        stored = torch.load(path, weights_only=True)  # plain values and tensors only
        count += sum(
            not torch.equal(value, stored["network_weights"][name]) for name, value in network.state_dict().items()
        )
        count += trainer.current_epoch != stored["current_epoch"]
    return count


def different_weights(first: Path, second: Path) -> int:
    """How many tensors of two models are not bit for bit equal."""
    count = 0
    with open_model(first) as ours, open_model(second) as theirs:
        for name, entry in ours.configurations.items():
            for mine, other in zip(entry.folds, theirs.configurations[name].folds, strict=True):
                before, after = load_weights(mine.weights), load_weights(other.weights)
                count += len(before.keys() ^ after.keys())
                count += sum(not torch.equal(before[key], after[key]) for key in before.keys() & after.keys())
    return count


if __name__ == "__main__":
    main()
