"""The ``segwright`` command: one subcommand a stage, calling the same library functions as the workflow's scripts.

Exit code 0, or 2 with one clear message, or 75 when a training saved its state and wants to be started again.
Everything is imported inside the commands, so that planning starts without torch and help without numpy.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Mapping, Sequence

from segwright.cli_arguments import make_parser
from segwright.cli_inputs import (
    dataset_facts,
    fingerprint_of,
    image_files,
    json_object,
    labels_file,
    planned_text,
    planning_settings,
    previous_stage,
    read_plans,
    reader_of,
    require_channels,
    require_other_folder,
    require_output,
    require_own_folder,
    stored_plan,
    training_settings,
)
from segwright.cli_messages import messages_to_terminal, os_error_text
from segwright.core.errors import SegwrightError, SettingsError

log = logging.getLogger(__name__)

USAGE_ERROR = 2
INTERRUPTED = 130  # 128 + SIGINT, as shells say it


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand; returns its exit code."""
    options = make_parser().parse_args(arguments)
    command = _COMMANDS[options.command]
    with messages_to_terminal():
        if options.debug:
            command(options)
            return 0
        try:
            command(options)
        except SegwrightError as error:
            log.error("%s", error)
            return error.exit_code
        except MemoryError:
            log.error("there is not enough memory; free some, or use fewer --workers")
            return USAGE_ERROR
        except OSError as error:  # no right to write, disk full, a folder where a file should be
            log.error("%s", os_error_text(error))
            return USAGE_ERROR
        except KeyboardInterrupt:
            log.error("interrupted; start the same command again to go on")
            return INTERRUPTED
    return 0


# --- the commands, in the order of the stages -------------------------------------------------------------------------


def _inspect(options: argparse.Namespace) -> None:
    from segwright.inspection.checks import read_checks
    from segwright.inspection.dataset import inspect_dataset

    require_output(options.output)
    fingerprint = inspect_dataset(options.dataset, options.output, workers=options.workers)
    checks = read_checks(options.output / "checks.json")
    log.info(
        "%d training cases, no errors, %d warnings: %s",
        len(checks.cases),
        len(checks.warnings),
        options.output / "checks.tsv",
    )
    log.info("fingerprint: %s", fingerprint)


def _plan(options: argparse.Namespace) -> None:
    from segwright.core.configfile import pipeline_settings_from_file
    from segwright.core.registry import load_plugins
    from segwright.planning.planner import make_plans
    from segwright.planning.slices import write_plan_folder

    require_output(options.output)
    load_plugins(options.plugin)
    settings = pipeline_settings_from_file(options.settings)
    facts = dataset_facts(options.dataset_json)
    fingerprint = fingerprint_of(options.fingerprint)
    name = options.name or options.dataset_json.resolve().parent.name
    reader = reader_of(fingerprint, facts, options.dataset_json)
    planning = planning_settings(settings.planning, options)
    plans, reasons = make_plans(fingerprint, facts, planning, dataset_name=name, reader=reader)
    write_plan_folder(options.output, plans, reasons, facts, settings.preprocessing)
    for configuration in plans.configurations:
        log.info("%s", planned_text(plans, configuration))
    log.info("plans: %s, and why: %s", options.output / "plans.json", options.output / "reasons.md")


def _preprocess(options: argparse.Namespace) -> None:
    from segwright.core.configfile import pipeline_settings_from_file
    from segwright.core.dataset import load_dataset
    from segwright.core.files import write_json
    from segwright.core.slices import preprocess_slice
    from segwright.inspection.batch import inspect_batch
    from segwright.inspection.checks import collect_checks, require_valid, write_checks
    from segwright.preprocessing.batch import Target, preprocess_for_targets, write_index

    require_output(options.output)
    preprocessing = pipeline_settings_from_file(options.settings).preprocessing
    plans = read_plans(options.plans)
    dataset = load_dataset(options.dataset)
    how = (preprocessing.label_resize, preprocessing.order_of_steps)
    stores = {}
    for name in options.configuration:
        plan = preprocess_slice(plans, name, dataset.labels, dataset.channel_names, *how)
        require_channels(plan, dataset.name, options.plans)
        folder = options.output if len(options.configuration) == 1 else options.output / name
        require_own_folder(folder, plan)
        stores[folder] = plan
    records = options.output / "inspection" / "batch_0.json"
    case_ids = [case.case_id for case in dataset.training]
    inspect_batch(dataset, case_ids, records, records.parent, workers=options.workers)
    checks = collect_checks([records], dataset)
    write_checks(checks, options.output / "checks.json", options.output / "checks.tsv")
    require_valid(checks)
    targets = [Target(plan, folder / "batch_0.json", folder / "cases") for folder, plan in stores.items()]
    preprocess_for_targets(dataset, records, targets, workers=options.workers)
    for folder, plan in stores.items():
        write_json(folder / "preprocess.json", plan.to_json())
        write_index([folder / "batch_0.json"], folder / "index.json")
        log.info("%d cases: %s", len(case_ids), folder)


def _train(options: argparse.Namespace) -> None:
    from segwright.core.settings import ExecutionSettings
    from segwright.core.slices import train_slice
    from segwright.splits import fold_of_splits_file
    from segwright.training.machine import leased_device

    require_output(options.output)
    settings = training_settings(options)
    plans = read_plans(options.plans)
    labels = stored_plan(options.preprocessed, plans, options.plans, options.configuration).labels
    plan = train_slice(plans, options.configuration, labels)
    index = options.preprocessed / "index.json"
    fold = fold_of_splits_file(options.splits, options.fold, index)
    with leased_device(ExecutionSettings(device=options.device)) as device:  # chooses the GPU before torch is imported
        from segwright.training.fold import train_fold
        from segwright.training.request import TrainingRequest

        train_fold(
            TrainingRequest(
                plan=plan,
                settings=settings,
                index=index,
                fold=fold,
                output=options.output,
                device=device,
                workers=options.workers,
                next_stage=previous_stage(options.previous_stage, plan.previous_stage),
                initial_model=options.initial_model,
                deadline=None,
                plugins=tuple(options.plugin),
            )
        )
    log.info("model: %s", options.output / "model.safetensors")


def _predict(options: argparse.Namespace) -> None:
    from segwright.core.settings import ExecutionSettings
    from segwright.sharing.model import open_model
    from segwright.sharing.use import input_cases, predict_with_model, require_free_output, require_plugins
    from segwright.training.machine import leased_device

    require_output(options.output)
    require_other_folder(options.input, options.output)
    with open_model(options.model) as model:
        require_plugins(model, options.plugin)
        inputs = image_files(model, options.input)  # a wrong input or output is named before a GPU is waited for
        cases = input_cases(model, inputs)
        require_free_output(model, cases, options.output, save_probabilities=options.save_probabilities)
        with leased_device(ExecutionSettings(device=options.device)) as device:
            predict_with_model(
                model,
                inputs,
                options.output,
                folds=options.folds,
                mirroring=not options.no_mirroring,
                save_probabilities=options.save_probabilities,
                device=device,
                plugins=tuple(options.plugin),
            )


def _evaluate(options: argparse.Namespace) -> None:
    from segwright.core.labels import Labels
    from segwright.evaluation.summary import evaluate_folders

    require_output(options.output, is_file=True)
    summary = evaluate_folders(
        options.reference,
        options.prediction,
        options.dataset_json,
        options.output,
        partial=options.partial,
        workers=options.workers,
    )
    labels = Labels.from_json(json_object(options.dataset_json))
    for key in summary.keys:
        log.info("Dice %.4f  %s", summary.mean[key]["Dice"], labels.name_of(key))
    log.info("Dice %.4f  mean of %d cases: %s", summary.foreground_mean["Dice"], len(summary.cases), options.output)


def _ensemble(options: argparse.Namespace) -> None:
    from segwright.selection.folders import ensemble_folders

    require_output(options.output)
    ensemble_folders(
        options.inputs,
        options.output,
        labels_file(options.dataset_json, options.inputs[0]),
        save_probabilities=options.save_probabilities,
        workers=options.workers,
    )
    log.info("segmentations: %s", options.output)


def _postprocess(options: argparse.Namespace) -> None:
    from segwright.selection.folders import postprocess_folder

    require_output(options.output)
    labels = labels_file(options.dataset_json, options.input)
    postprocess_folder(options.input, options.rules, options.output, labels, workers=options.workers)
    log.info("segmentations: %s", options.output)


def _import_model(options: argparse.Namespace) -> None:
    from segwright.sharing.nnunet_v2.import_model import import_model

    made = import_model(options.input, options.output, configurations=options.configurations, folds=options.folds)
    log.info("model: %s", made)


def _export_model(options: argparse.Namespace) -> None:
    from segwright.sharing.nnunet_v2.export_model import export_model  # --format has one value so far

    made = export_model(options.model, options.output, dataset_id=options.dataset_id)
    log.info("zip for nnUNetv2_install_pretrained_model_from_zip: %s", made)


def _convert(options: argparse.Namespace) -> None:
    if options.format == "msd":
        from segwright.conversion.msd import convert_msd

        if options.name is not None and options.dataset_id is not None:
            raise SettingsError("--name holds the number already; leave out --dataset-id")
        made = convert_msd(options.input, options.output, dataset_id=options.dataset_id, name=options.name)
    else:
        from segwright.conversion.v1 import convert_v1

        if options.dataset_id is not None:
            raise SettingsError("--dataset-id is for msd; name a v1 dataset with --name Dataset004_Hippocampus")
        made = convert_v1(options.input, options.output, name=options.name)
    log.info("dataset: %s", made)


def _phantom(options: argparse.Namespace) -> None:
    from segwright.phantom import make_phantom

    made = make_phantom(options.preset, options.cases, options.seed, options.output, test_cases=options.test_cases)
    log.info("dataset: %s", made)


def _status(options: argparse.Namespace) -> None:
    from segwright.core.configfile import load_settings
    from segwright.status import status_lines

    settings = None if options.configfile is None else load_settings(options.configfile)
    sys.stdout.write("\n".join(status_lines(options.results, settings)) + "\n")


_COMMANDS: Mapping[str, Callable[[argparse.Namespace], None]] = {
    "inspect": _inspect,
    "plan": _plan,
    "preprocess": _preprocess,
    "train": _train,
    "predict": _predict,
    "evaluate": _evaluate,
    "ensemble": _ensemble,
    "postprocess": _postprocess,
    "import-model": _import_model,
    "export-model": _export_model,
    "convert": _convert,
    "phantom": _phantom,
    "status": _status,
}


if __name__ == "__main__":
    sys.exit(main())
