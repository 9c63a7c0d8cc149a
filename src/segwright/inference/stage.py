"""A trained configuration: its predict slice, the weights of its folds and what their trainings recorded.

Needs no torch, so what is predicted can be described before a GPU is chosen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from segwright.core.errors import MALFORMED, DamagedFileError, ModelError, brief
from segwright.core.files import file_digest, json_digest, read_json
from segwright.core.recorded import RecordedFile
from segwright.core.settings import PredictionSettings
from segwright.core.slices import PredictPlan
from segwright.core.versions import STAGE_VERSION


@dataclass(frozen=True)
class TrainingFacts:
    """What prediction must know of a training: its ``training.json``.

    Attributes:
        mirror_axes: spatial axes that were flipped in training, so may be flipped in prediction.
        network: name of a plugin's network that was trained instead of the planned one, or None.
        plugins: plugin file name -> digest, all that were loaded in training.
        torch_threads: threads of torch in training; in the workflow prediction uses as many, for equal bytes anywhere.
    """

    mirror_axes: tuple[int, ...] = ()
    network: str | None = None
    plugins: Mapping[str, str] = field(default_factory=dict)
    torch_threads: int | None = None


@dataclass(frozen=True)
class Stage:
    """One configuration of a trained model, which predicts by itself or as a stage of a cascade.

    Attributes:
        weights: of one or several folds, whose predictions are averaged (method 10.2).
        training: what all folds were trained with.
    """

    plan: PredictPlan
    weights: tuple[Path, ...]
    training: TrainingFacts = field(default_factory=TrainingFacts)

    @staticmethod
    def of_folds(plan: PredictPlan, weights: Sequence[Path], training_jsons: Sequence[Path]) -> Stage:
        """The configuration with the weights of its folds, each with the ``training.json`` of the same fold.

        Raises:
            DamagedFileError: weights are not those their training recorded, or a record is missing or none.
            ModelError: the folds have different networks.
        """
        training = merge_training_facts([read_training_facts(path) for path in training_jsons])
        for fold_weights, training_json in zip(weights, training_jsons, strict=True):
            _require_trained(fold_weights, training_json)
        return Stage(plan, tuple(weights), training)

    def digest(self, settings: PredictionSettings) -> str:
        """Digest of everything scores and label maps depend on besides the case. Device and workers are not in it."""
        return json_digest(
            {
                "version": STAGE_VERSION["inference"],
                "plan": self.plan.to_json(),
                "label_order": self.plan.labels.entries,  # regions go in this order, which a sorted digest hides
                "weights": [file_digest(path) for path in self.weights],
                "tile_step": settings.tile_step,
                "gaussian": settings.gaussian,
                "mirror_axes": self.training.mirror_axes if settings.mirroring else (),
                "average": settings.average,
                "precision": settings.precision,
                "network": self.training.network,
                "plugins": dict(self.training.plugins),
            }
        )


def read_training_facts(path: Path | str) -> TrainingFacts:
    """Read a fold's ``training.json``.

    Raises:
        DamagedFileError: it is missing or not such a file.
    """
    record = read_json(path)
    try:
        settings = record.get("settings", {})
        threads = settings.get("torch_threads")
        return TrainingFacts(
            mirror_axes=tuple(int(axis) for axis in record["mirror_axes"]),
            network=settings.get("network"),
            torch_threads=None if threads is None else int(threads),
            plugins={str(name): str(digest) for name, digest in (record.get("plugins") or {}).items()},
        )
    except MALFORMED as problem:
        text = f"not a training record ({brief(repr(problem))})"
        raise DamagedFileError(path, text, "train this fold again") from problem


def merge_training_facts(facts: Sequence[TrainingFacts]) -> TrainingFacts:
    """Facts of several folds that predict together; only axes flipped in all of them are flipped.

    nnU-Net v2 flips the axes of the first fold it loads, whatever the others were trained with.

    Raises:
        ModelError: the folds have different networks, so their weights cannot be averaged in one.
    """
    if len({entry.network for entry in facts}) != 1:
        raise ModelError("the folds were trained with different networks; train them again with one setting")
    common = set.intersection(*(set(entry.mirror_axes) for entry in facts))
    plugins = {name: digest for entry in facts for name, digest in entry.plugins.items()}
    return TrainingFacts(tuple(sorted(common)), facts[0].network, plugins, facts[0].torch_threads)


def _require_trained(weights: Path, training_json: Path) -> None:
    """Refuse weights that are not the ones the training recorded."""
    wanted = read_json(training_json).get("weights_digest")
    if wanted is not None:
        remedy = f"delete {training_json} and run again: training goes on from its last state"
        RecordedFile(weights, str(wanted), training_json, remedy).verify()
