"""Write a model as nnU-Net v2's exported zip: installed and used there, it gives the same segmentation (method 13).

Layout, all below ``DatasetXXX_Name/`` as v2's own export makes it:
``nnUNetTrainer__{plans}__{configuration}/{plans.json,dataset.json,fold_k/checkpoint_final.pth}``,
``.../crossval_results_folds_0_1/{summary.json,postprocessing.pkl,postprocessing.json,plans.json,dataset.json}`` (of an
ensemble below ``ensembles/``), ``inference_information.json`` and ``inference_instructions.txt`` with the commands.
A model folder holds neither per-case scores nor the dataset's fingerprint, so these files of v2 are left out.
"""

from __future__ import annotations

import logging
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segwright.core.errors import MALFORMED, ModelError, brief
from segwright.core.files import TEMPORARY_PREFIX, read_json, write_bytes, write_json, write_text
from segwright.core.plans import Plans
from segwright.selection.best import Selection, members_of, read_selection
from segwright.sharing.archive import write_archive
from segwright.sharing.model import ModelConfiguration, PackagedModel, open_model
from segwright.sharing.nnunet_v2.checkpoint_out import CHECKPOINT, CheckpointFacts, write_checkpoint
from segwright.sharing.nnunet_v2.instructions_out import (
    INFORMATION,
    INSTRUCTIONS,
    commands,
    information,
    instructions,
    remarks,
)
from segwright.sharing.nnunet_v2.plans_out import (
    Names,
    folds_text,
    peer_dataset_json,
    peer_names,
    peer_plans,
    require_expressible,
)
from segwright.sharing.nnunet_v2.postprocessing_out import postprocessing_json, postprocessing_pickle

log = logging.getLogger(__name__)

_FOLD = re.compile(r"\d{1,3}|all")


def export_model(model: Path | str, output: Path | str, *, dataset_id: int | None = None) -> Path:
    """Write ``output``, a zip for ``nnUNetv2_install_pretrained_model_from_zip``; returns its path.

    Equal models give equal bytes (with the same torch). Commands and settings that v2 has to be given are logged, and
    stand in the zip's inference_instructions.txt.

    Args:
        model: folder or zip of a segwright model.
        dataset_id: 1 to 999, replaces or adds the number in the dataset's name, which v2 finds models by.

    Raises:
        ModelError: it is no model, ``output`` exists, v2 cannot give the same segmentation, or no number is known.
        PlansError: the plans lack something v2 needs.
    """
    output = Path(output)
    if output.exists() or output.is_symlink():
        raise ModelError(f"{output}: exists already and is never overwritten; choose another name or move it away")
    with open_model(model) as opened:
        content = _Content.of(opened, dataset_id)
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=TEMPORARY_PREFIX, dir=output.parent) as temporary:
            folder = Path(temporary)
            content.write(folder)
            names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
            write_archive(output, folder, names)
        for line in (*remarks(opened), *commands(opened, content.names, content.chosen_folder)):
            log.info("%s", line)
    return output


@dataclass(frozen=True)
class _Content:
    """A model with everything about it that is read once."""

    model: PackagedModel
    names: Names
    plans: Plans
    facts: Mapping[str, Any]
    selection: Selection
    postprocessing: Mapping[str, Any]
    candidates: Mapping[str, Mapping[str, Any]]
    trainings: Mapping[str, Mapping[str, Mapping[str, Any]]]
    """Configuration -> fold -> content of training.json."""

    @staticmethod
    def of(model: PackagedModel, dataset_id: int | None) -> _Content:
        """Read a model, and refuse what v2 cannot express.

        Raises:
            ModelError: v2 cannot, or a file of the model is not what it should be.
        """
        try:
            return _Content._read(model, dataset_id)
        except MALFORMED as problem:
            raise ModelError(f"{model.folder}: not a valid model ({brief(repr(problem))}); get it again") from problem

    @staticmethod
    def _read(model: PackagedModel, dataset_id: int | None) -> _Content:
        folder = model.folder
        trainings = {
            name: {fold.fold: read_json(fold.training) for fold in entry.folds}
            for name, entry in model.configurations.items()
        }
        require_expressible(model, {name: next(iter(records.values())) for name, records in trainings.items()})
        plans = Plans.from_json(read_json(folder / "plans.json"))
        selection = read_selection(folder / "selection.json")
        for fold in {*selection.folds, *(name for records in trainings.values() for name in records)}:
            if not _FOLD.fullmatch(fold):  # folds become names of folders
                raise ModelError(f"{folder}: {brief(fold)} is no fold (0, 1, ... or all); do not use this model")
        candidates = read_json(folder / "metrics.json")["candidates"]
        return _Content(
            model=model,
            names=peer_names(model, plans, dataset_id),
            plans=plans,
            facts=read_json(folder / "dataset.json"),
            selection=selection,
            postprocessing=read_json(folder / "postprocessing.json"),
            candidates={str(name): dict(metrics) for name, metrics in candidates.items()},
            trainings=trainings,
        )

    @property
    def chosen_folder(self) -> str:
        """Where v2 expects the results of the model's members and their postprocessing."""
        return self.results_folder(self.model.members)

    def results_folder(self, members: tuple[str, ...]) -> str:
        folds = tuple(fold.fold for fold in self.model.configurations[members[0]].folds)
        if len(members) > 1:
            return f"{self.names.dataset}/ensembles/{self.names.ensemble(members, self.selection.folds or folds)}"
        model_folder = self.names.model(members[0])
        return f"{self.names.dataset}/{model_folder}/crossval_results_folds_{folds_text(folds)}"

    def write(self, root: Path) -> None:
        """Write all files of the zip below ``root``."""
        base = root / self.names.dataset
        for entry in self.model.configurations.values():
            self._write_configuration(base / self.names.model(entry.name), entry)
        for candidate, metrics in self.candidates.items():
            members = members_of(candidate)
            if all(name in self.model.configurations for name in members):
                folder = root / self.results_folder(members)
                self._write_facts(folder, members[0])
                write_json(folder / "summary.json", {**metrics, "metric_per_case": []})
        chosen = root / self.chosen_folder
        self._write_facts(chosen, self.model.members[0])
        write_bytes(chosen / "postprocessing.pkl", postprocessing_pickle(self.model.rules))
        write_json(chosen / "postprocessing.json", postprocessing_json(self.model.rules, self.postprocessing))
        told = information(self.model, self.names, self.selection, self.chosen_folder, self.postprocessing)
        write_json(base / INFORMATION, told)
        write_text(base / INSTRUCTIONS, instructions(self.model, self.names, self.chosen_folder))

    def _write_configuration(self, folder: Path, entry: ModelConfiguration) -> None:
        plans, dataset = self._write_facts(folder, entry.name)
        for fold in entry.folds:
            facts = CheckpointFacts(
                plans=plans,
                dataset=dataset,
                fold=fold.fold,
                training=self.trainings[entry.name][fold.fold],
                mirror_axes=entry.mirror_axes if self.model.prediction.mirroring else (),
            )
            write_checkpoint(folder / f"fold_{fold.fold}" / CHECKPOINT, fold.weights, entry.plan, facts)

    def _write_facts(self, folder: Path, configuration: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """plans.json and dataset.json, which v2 looks for wherever something was predicted."""
        plans = peer_plans(self.model, self.plans, configuration, self.names)
        labels = self.model.configurations[configuration].plan.labels
        dataset = peer_dataset_json(labels, self.model.channel_names, self.facts)
        write_json(folder / "plans.json", plans, sort_keys=False)
        write_json(folder / "dataset.json", dataset, sort_keys=False)
        return plans, dataset
