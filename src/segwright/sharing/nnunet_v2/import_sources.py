"""Read what an import needs of nnU-Net v2's results, and check that it fits together. Writes nothing."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from segwright.core.errors import ModelError
from segwright.core.files import read_json
from segwright.core.plans import Plans
from segwright.sharing.nnunet_v2.checkpoint_in import Checkpoint, read_checkpoint
from segwright.sharing.nnunet_v2.plans_in import facts_from_v2, plans_from_v2, require_same
from segwright.sharing.nnunet_v2.results_folder import BEST, FINAL, Choice, Results, TrainedModel
from segwright.sharing.nnunet_v2.trainers import PLANNED_NETWORK

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """A trained configuration, read and checked.

    Attributes:
        name: its name in the new model.
        previous: identifier of the model of its previous stage.
    """

    model: TrainedModel
    name: str
    plans: Plans
    facts: Mapping[str, Any]
    checkpoints: Mapping[str, Checkpoint]
    previous: str | None = None

    @property
    def first(self) -> Checkpoint:
        return next(iter(self.checkpoints.values()))

    @property
    def configuration(self) -> str:
        """Its name in nnU-Net, as the checkpoint says."""
        return self.first.configuration

    @property
    def previous_stage(self) -> str | None:
        return self.plans.configuration(self.configuration).previous_stage


@dataclass
class Import:
    """One import: where from, and what a person should know about it."""

    results: Results
    choice: Choice
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Tell it once, and on the model card."""
        if text in self.notes:
            return
        log.warning("%s", text)
        self.notes.append(text)


def read_sources(work: Import) -> list[Source]:
    """All configurations of the new model, previous stages before those that need them; members have equal data."""
    found: dict[str, Source] = {}
    members = [_read(work, model, is_member=True) for model in work.choice.members]
    for member in members:
        chain, seen = [member], {member.model.identifier}
        while (stage := chain[0].previous_stage) is not None:
            model = work.results.previous_stage_of(chain[0].model, stage, _lineages(chain[0]))
            if model.identifier in seen:
                raise ModelError(f"{model.folder}: is its own previous stage; correct plans.json")
            seen.add(model.identifier)
            chain[0] = replace(chain[0], previous=model.identifier)
            chain.insert(0, _read(work, model, is_member=False))
        for entry in chain:
            found.setdefault(entry.model.identifier, entry)
    for entry in found.values():
        names = f"{members[0].model.identifier} and {entry.model.identifier}"
        require_same(members[0].plans, entry.plans, names)
        if _meaning(members[0].facts) != _meaning(entry.facts):
            raise ModelError(f"{names}: their dataset.json declare other labels, channels or files; import one of them")
    return _named(list(found.values()))


def _read(work: Import, model: TrainedModel, *, is_member: bool) -> Source:
    """Read one model's folder: checkpoints first, they say which configuration of the plans it is."""
    checkpoints = {fold: read_checkpoint(path) for fold, path in _chosen(work, model, is_member).items()}
    first = next(iter(checkpoints.values()))
    for checkpoint in checkpoints.values():
        if (checkpoint.configuration, checkpoint.trainer) != (first.configuration, first.trainer):
            raise ModelError(f"{checkpoint.path}: belongs to another configuration or trainer than {first.path}")
    plans_file, facts_file = model.folder / "plans.json", model.folder / "dataset.json"
    plans = plans_from_v2(read_json(plans_file), [first.configuration], str(plans_file))
    facts = facts_from_v2(read_json(facts_file), plans, str(facts_file))
    misplaced = model.configuration in plans.configurations and model.configuration != first.configuration
    if misplaced and model is not work.results.single:  # a copy of one folder may have any name
        raise ModelError(
            f"{first.path}: is a checkpoint of {first.configuration}, but lies in {model.identifier}; correct it"
        )
    configuration = plans.configuration(first.configuration)
    if len(configuration.normalization_schemes) != len(facts["channel_names"]):
        raise ModelError(
            f"{plans_file}: is for {len(configuration.normalization_schemes)} channels, but {facts_file} declares"
            f" {len(facts['channel_names'])}"
        )
    if any(axis >= len(configuration.patch_size) for entry in checkpoints.values() for axis in entry.mirror_axes):
        raise ModelError(f"{first.path}: mirrors an axis the patch does not have; get the checkpoint again")
    if len({entry.mirror_axes for entry in checkpoints.values()}) > 1:
        work.note(f"{model.identifier}: its folds were mirrored on different axes; only those of all are used.")
    if first.trainer not in PLANNED_NETWORK:
        work.note(
            f"{model.identifier}: the trainer {first.trainer} is none of nnU-Net's own that train the planned network;"
            " if it changes activations or normalisation, predictions differ."
        )
    return Source(model, first.configuration, plans, facts, checkpoints)


def _chosen(work: Import, model: TrainedModel, is_member: bool) -> dict[str, Path]:
    """The checkpoints of the chosen folds; a previous stage, or a selection that lost some, uses what is there."""
    available, wanted = model.checkpoints(), work.choice.folds
    required = work.choice.folds_required and is_member
    named = wanted or () if work.choice.folds_required else ()
    if wanted is not None and not required:
        present = _finished({fold: available[fold] for fold in wanted if fold in available}, named)
        lost = [fold for fold in wanted if fold not in present]
        if lost and present:
            work.note(f"{model.identifier}: was selected with fold {', '.join(lost)}, which is missing or unfinished.")
        wanted = tuple(present) or None
    if wanted is None:
        finished = _finished(available)
        unfinished = [fold for fold in model.folds() if fold not in finished]
        if unfinished and finished:
            work.note(
                f"{model.identifier}: fold {', '.join(unfinished)} has no final checkpoint and was left out; --folds"
                f" takes its {BEST}, where there is one."
            )
        # a network trained on all cases does not join those that were tested on theirs, as in nnU-Net
        wanted = tuple(fold for fold in finished if fold != "all" or len(finished) == 1)
    missing = [fold for fold in wanted if fold not in available]
    if missing or not wanted:
        raise ModelError(
            f"{model.folder}: has no {FINAL} or {BEST} of fold {', '.join(missing) or '0, 1, ... or all'} (there is"
            f" {', '.join(available) or 'none'}); train it, or choose others with --folds"
        )
    for fold in wanted:
        if available[fold].name == BEST:
            work.note(f"{model.identifier}: fold {fold} has no final checkpoint, {BEST} was taken.")
    return {fold: available[fold] for fold in wanted}


def _finished(checkpoints: Mapping[str, Path], named: Sequence[str] = ()) -> Mapping[str, Path]:
    """Without folds that still train, unless the user named them or there are no others.

    nnU-Net averages only folds that have the one kind of checkpoint it was asked for.
    """
    return {fold: path for fold, path in checkpoints.items() if path.name == FINAL or fold in named} or checkpoints


def _meaning(facts: Mapping[str, Any]) -> list[Any]:
    """What dataset.json says of images and labels; regions go by the order of the labels."""
    keys = ("regions_class_order", "channel_names", "file_ending")
    return [list(facts["labels"].items()), *(facts.get(key) for key in keys)]


def _lineages(source: Source) -> list[tuple[str, str]]:
    """Trainer and plans as its files name them, and as its folder does, which may have been renamed with the others."""
    return [(source.first.trainer, source.plans.plans_name), (source.model.trainer, source.model.plans_name)]


def _named(sources: Sequence[Source]) -> list[Source]:
    """Names of configurations as in nnU-Net, unless two trainers or plans have the same one."""
    count: dict[str, int] = {}
    for source in sources:
        count[source.configuration] = count.get(source.configuration, 0) + 1
    named = []
    for source in sources:
        name = source.configuration if count[source.configuration] == 1 else source.model.identifier
        named.append(replace(source, name=re.sub(r"_{2,}", "_", re.sub(r"[^A-Za-z0-9_]", "_", name))))
    if len({source.name for source in named}) != len(named):
        raise ModelError(f"two configurations would be named {named[0].name}; import them one by one")
    return named
