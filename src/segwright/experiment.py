"""What the workflow asks of a configuration: which cases, batches, folds and configurations there are.

Pure functions of the settings, of one listing of each dataset and of a plan's ``configurations.json``. The Snakefile's
input functions are thin calls of these, so that they can be tested without Snakemake. Reads no image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

from segwright.batches import Batches
from segwright.core.configchecks import require_what_is_named
from segwright.core.configfile import load_settings, pipeline_settings
from segwright.core.configvalues import build
from segwright.core.dataset import Dataset, load_dataset
from segwright.core.errors import DamagedFileError, PlansError, SettingsError, brief, named
from segwright.core.files import DELETE_FOLDER, read_json
from segwright.core.plans import STANDARD_CONFIGURATIONS
from segwright.core.plugins import names_a_plugin
from segwright.core.settings import (
    ExecutionSettings,
    PipelineSettings,
    Settings,
    TrainingSettings,
    to_plain,
)
from segwright.held_out import not_held_out_once, written_ns
from segwright.plain_paths import require_plain_files, require_plain_options
from segwright.planned import PlannedConfiguration, ancestors, previous_stages
from segwright.ready_folds import ReadyFolds, folds_in_file
from segwright.splits import ALL

_NOT_IN_TRAINING_PARAMS = ("configurations", "folds", "keep_state", "initial_model", "schedule")
_NOT_IN_PREDICTION_PARAMS = ("configuration", "save_probabilities")


@dataclass(frozen=True)
class Experiment:
    """A configuration file with the listing of its datasets.

    Attributes:
        ready_folds: of the datasets whose folds come from a ready-made file.
    """

    settings: Settings
    datasets: Mapping[str, Dataset]
    ready_folds: Mapping[str, ReadyFolds] = field(default_factory=dict)

    @staticmethod
    def load(config: Mapping[str, Any]) -> Experiment:
        """Check the configuration and list every dataset once.

        Raises:
            SettingsError: an option is wrong. DatasetError: a dataset folder, its dataset.json or its splits file is.
        """
        settings = load_settings(config)
        require_what_is_named(settings)
        require_plain_options(settings)
        datasets = {name: load_dataset(entry.path) for name, entry in settings.datasets.items()}
        for listed in datasets.values():
            require_plain_files(listed)
        ready = {name: folds_in_file(settings.datasets[name].splits, dataset) for name, dataset in datasets.items()}
        experiment = Experiment(settings, datasets, {name: folds for name, folds in ready.items() if folds is not None})
        for dataset in datasets:
            for pipeline in experiment.pipelines:
                folds = experiment.requested_folds(dataset, pipeline)
                experiment.require_fitting_training(dataset, pipeline)
                if dataset in experiment.ready_folds and folds != [ALL]:
                    experiment.ready_folds[dataset].require_disjoint(folds)
        return experiment

    @property
    def pipelines(self) -> tuple[str, ...]:
        return tuple(self.settings.pipelines)

    def pipeline(self, name: str) -> PipelineSettings:
        """The effective settings of a pipeline: the defaults with its own changes."""
        return pipeline_settings(self.settings, name)

    def require_fitting_training(self, dataset: str, pipeline: str) -> None:
        """What every training would refuse is refused at once: Snakemake deletes a job's old model before it starts.

        Raises:
            SettingsError: names the option.
        """
        training, outputs = self.pipeline(pipeline).training, self.datasets[dataset].labels.num_outputs
        given = training.class_weights
        if given is not None and len(given) != outputs and not names_a_plugin(training):
            raise SettingsError(
                f"training.class_weights has {len(given)} entries, but the network for dataset {dataset} has {outputs}"
                " outputs; give one weight for each"
            )
        if training.folds == ALL and (training.weights == "best" or training.early_stopping is not None):
            raise SettingsError(
                "training.weights: best and training.early_stopping need validation cases, and training.folds: all"
                " leaves none; leave them out, or train numbered folds"
            )
        if training.precision == "fp16" and self.settings.execution.device in ("cpu", "mps"):
            raise SettingsError(
                f"training.precision fp16 needs CUDA, but execution.device is {self.settings.execution.device}; use"
                " auto, fp32 or bf16"
            )

    # batches

    def training_batches(self, dataset: str) -> Batches:
        return self._training_batches[dataset]

    def test_batches(self, dataset: str) -> Batches:
        """Without batches where there is no imagesTs."""
        return self._test_batches[dataset]

    @cached_property
    def _training_batches(self) -> dict[str, Batches]:
        """By dataset, cut once: the graph asks for them many times a batch."""
        return {
            name: Batches.of(dataset.training, self.settings.datasets[name].batches)
            for name, dataset in self.datasets.items()
        }

    @cached_property
    def _test_batches(self) -> dict[str, Batches]:
        return {
            name: Batches.of(dataset.test, self.settings.datasets[name].batches)
            for name, dataset in self.datasets.items()
        }

    # folds

    def planned_folds(self, dataset: str) -> list[str]:
        """Every fold of the split, whichever are trained."""
        ready = self.ready_folds.get(dataset)
        count = self.settings.datasets[dataset].splits.folds if ready is None else len(ready.validation)
        return [str(fold) for fold in range(count)]

    def require_fold(self, dataset: str, fold: str) -> None:
        """The split has this fold.

        Raises:
            SettingsError: it has not.
        """
        named(dict.fromkeys([*self.planned_folds(dataset), ALL]), fold, "fold")

    def requested_folds(self, dataset: str, pipeline: str) -> list[str]:
        """The folds a pipeline trains: ``["all"]``, or some or all of the planned ones.

        Raises:
            SettingsError: a fold that does not exist is asked for.
        """
        wanted = self.pipeline(pipeline).training.folds
        planned = self.planned_folds(dataset)
        if wanted is None:
            return planned
        if isinstance(wanted, str):  # "all"
            return [ALL]
        unknown = [fold for fold in wanted if str(fold) not in planned]
        if unknown or not wanted:
            source = f" ({self.ready_folds[dataset].path})" if dataset in self.ready_folds else ""
            raise SettingsError(
                f"training.folds: {list(wanted)} for dataset {dataset}, which has folds 0 to {len(planned) - 1}{source}"
            )
        return [str(fold) for fold in sorted(set(wanted))]

    def trains_on_all_cases_only(self, dataset: str) -> bool:
        """No pipeline cross-validates: fewer cases than folds are fine, as long as no cascade needs the folds."""
        return all(self.requested_folds(dataset, pipeline) == [ALL] for pipeline in self.pipelines)

    # configurations, once the plan exists

    def requested_configurations(self, pipeline: str, plan: Mapping[str, PlannedConfiguration]) -> list[str]:
        """The candidates of a pipeline, in plans order.

        Raises:
            SettingsError: none of the wanted configurations was planned, or one that nnU-Net's planners never make.
            PlansError: the images are too small to train one of them, or a previous stage.
        """
        wanted = self.pipeline(pipeline).training.configurations
        # one setting serves all datasets, and not each has all of nnU-Net's configurations
        unknown = [name for name in wanted or () if name not in plan and name not in STANDARD_CONFIGURATIONS]
        if unknown:
            raise SettingsError(
                f"pipeline {pipeline}: training.configurations names {', '.join(unknown)}, which the plans do not have"
                f" (planned: {', '.join(plan)})"
            )
        candidates = [name for name in plan if wanted is None or name in wanted]
        if not candidates:
            raise SettingsError(
                f"pipeline {pipeline}: none of training.configurations {list(wanted or ())} was planned"
                f" (planned: {', '.join(plan)})"
            )
        needed = [name for name in plan if name in {*candidates, *ancestors(candidates, plan)}]
        if problems := [problem for name in needed if (problem := plan[name].problem)]:
            raise PlansError("\n".join(problems))
        return candidates

    def require_what_predicts(self, dataset: str, pipeline: str, plan: Mapping[str, PlannedConfiguration]) -> None:
        """The wanted configurations can be trained, and ``prediction.configuration`` is one of them or an ensemble.

        Of several datasets some may lack it, see :meth:`without_what_predicts`.

        Raises:
            SettingsError, PlansError: it is not, or see :meth:`requested_configurations`.
        """
        candidates = self.requested_configurations(pipeline, plan)
        candidates += ["+".join(pair) for pair in self.ensembles(dataset, pipeline, plan)]
        wanted = self.pipeline(pipeline).prediction.configuration
        if wanted is not None and wanted not in candidates and not self.without_what_predicts(pipeline, plan):
            raise SettingsError(
                f"dataset {dataset}, pipeline {pipeline}: prediction.configuration is {wanted}, but the candidates are"
                f" {', '.join(candidates)}; choose one of these, or add it to training.configurations"
            )

    def without_what_predicts(self, pipeline: str, plan: Mapping[str, PlannedConfiguration]) -> list[str]:
        """What ``prediction.configuration`` names and this plan lacks, where that is no mistake: the selected predicts.

        One setting serves all datasets, and nnU-Net's planners make no 3-D configuration for 2-D images and a cascade
        for large ones only. With one dataset the setting is meant for this one, so what it lacks is a mistake.
        """
        wanted = self.pipeline(pipeline).prediction.configuration
        if wanted is None or len(self.datasets) == 1:
            return []
        lacking = [name for name in wanted.split("+") if name not in plan]
        return lacking if all(name in STANDARD_CONFIGURATIONS for name in lacking) else []

    def require_held_out_cases(
        self, dataset: str, pipeline: str, configuration: str, plan: Mapping[str, PlannedConfiguration], splits: Path
    ) -> None:
        """A cascade learns from label maps of cases its previous stage had not seen, so it needs one of every case.

        Args:
            configuration: one that is to be trained; nothing is asked of it unless a candidate cascade builds on it.
            splits: the folder that the rule ``split`` made.

        Raises:
            SettingsError: there are no folds, or some case is in the validation of none of them, or of several.
            DamagedFileError: the folder holds no split.
        """
        candidates = self.requested_configurations(pipeline, plan)
        cascades = [name for name in candidates if configuration in previous_stages(name, plan)]
        if not cascades:
            return
        requested = tuple(self.requested_folds(dataset, pipeline))
        wrong, some_held_out = not_held_out_once(splits, written_ns(splits), requested)
        if not wrong:
            return
        example, count = next(iter(wrong.items()))
        problem = f"{len(wrong)} cases are not, for example {brief(example)} (in {count})"
        if not some_held_out:
            problem = f"the cases or their groups are too few for {len(self.planned_folds(dataset))} folds"
            if dataset in self.ready_folds:
                problem = f"the folds of {self.ready_folds[dataset].path} cannot be used"
        others = [name for name in plan if name not in cascades]
        raise SettingsError(
            f"dataset {dataset}: {', '.join(cascades)} learns from what {configuration} predicts for cases it was not"
            f" trained on, so each case must be in the validation of exactly one fold; {problem}. Leave it out of"
            f" training.configurations (planned besides: {', '.join(others)}), or change datasets.{dataset}.splits"
        )

    def folds_to_train(
        self, dataset: str, pipeline: str, configuration: str, plan: Mapping[str, PlannedConfiguration]
    ) -> list[str]:
        """Folds of one configuration: the requested ones, and every planned one if a candidate cascade builds on it."""
        requested = self.requested_configurations(pipeline, plan)
        folds = self.requested_folds(dataset, pipeline) if configuration in requested else []
        if configuration in ancestors(requested, plan):
            folds = [*self.planned_folds(dataset), *(fold for fold in folds if fold == ALL)]
        return folds

    def ensembles(self, dataset: str, pipeline: str, plan: Mapping[str, PlannedConfiguration]) -> list[tuple[str, str]]:
        """Pairs of candidates that are scored as ensembles."""
        if not self.pipeline(pipeline).selection.ensembles or self.requested_folds(dataset, pipeline) == [ALL]:
            return []
        return list(combinations(self.requested_configurations(pipeline, plan), 2))

    # params of the rules: only what changes results

    def inspection_params(self, dataset: str, training_batch: str | None = None) -> dict[str, Any]:
        """What checks rest on besides the files; without numTraining, so a new case re-inspects its batch only.

        Of a batch of training cases that dataset.json lists also which file is what: a rule's inputs have no order.
        """
        facts = self.datasets[dataset]
        params = {
            **facts.labels.to_json(),
            "channel_names": list(facts.channel_names),
            "file_ending": facts.file_ending,
            "reader": facts.reader,
        }
        if training_batch is not None and (listed := facts.description.get("dataset")):
            case_ids = self.training_batches(dataset).case_ids(training_batch)
            params["listed"] = {case_id: listed[case_id] for case_id in case_ids}
        return params

    def training_params(self, pipeline: str) -> dict[str, Any]:
        settings = to_plain(self.pipeline(pipeline).training.resolved())
        if settings["on_divergence"] == "stop":
            del settings["on_divergence"]  # as before there was this choice, so that older trainings still fit
        if settings["augment_on"] == "workers":
            del settings["augment_on"]  # likewise
        return {key: value for key, value in settings.items() if key not in _NOT_IN_TRAINING_PARAMS}

    def prediction_params(self, pipeline: str) -> dict[str, Any]:
        settings = to_plain(self.pipeline(pipeline).prediction)
        return {key: value for key, value in settings.items() if key not in _NOT_IN_PREDICTION_PARAMS}


def read_image_reader(plan_folder: Path | str) -> str:
    """Name of the reader the plans chose for the dataset's files."""
    path = Path(plan_folder) / "plans.json"
    plans = read_json(path, DELETE_FOLDER)
    if not isinstance(plans, dict) or not isinstance(plans.get("image_reader_writer"), str):
        raise DamagedFileError(path, "not plans: `image_reader_writer` is missing", DELETE_FOLDER)
    return str(plans["image_reader_writer"])


def read_selected_members(selection_folder: Path | str) -> list[str]:
    """The configurations a selection chose; reads no scores."""
    path = Path(selection_folder) / "selection.json"
    selection = read_json(path, DELETE_FOLDER)
    members = selection.get("members") if isinstance(selection, dict) else None
    if not isinstance(members, list) or not members:
        raise DamagedFileError(path, "not a selection: `members` is missing", DELETE_FOLDER)
    return [str(name) for name in members]


def candidate_of(summary: Path | str) -> str:
    """The candidate a summary belongs to: ``{name}/crossval/summary.json`` or ``ensembles/{a}+{b}/summary.json``."""
    folder = Path(summary).parent
    return folder.parent.name if folder.name == "crossval" else folder.name


def training_settings(params: Mapping[str, Any]) -> TrainingSettings:
    """The settings object behind :meth:`Experiment.training_params`."""
    return build(TrainingSettings, params, "training")


def loader_workers(execution: ExecutionSettings, threads: int, device: str) -> int:
    """Processes that load and augment: as set, else the cores a GPU job has left; on the CPU torch has them all."""
    if execution.loader_workers is not None:
        return execution.loader_workers
    return 0 if device == "cpu" else max(threads - 1, 1)
