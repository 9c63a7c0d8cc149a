"""The ``segwright`` command: one subcommand a stage, calling the same library functions as the workflow's scripts.

Exit code 0, or 2 with one clear message, or 75 when a training saved its state and wants to be started again.
Everything is imported inside the commands, so that planning starts without torch and help without numpy.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from segwright import __version__
from segwright.core.errors import SegwrightError

log = logging.getLogger(__name__)

Command = Callable[[argparse.Namespace], None]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand; returns its exit code."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr, force=True)
    if options.debug:
        options.command(options)
        return 0
    try:
        options.command(options)
    except SegwrightError as error:
        log.error("%s", error)
        return error.exit_code
    except KeyboardInterrupt:
        log.error("interrupted; start the same command again to go on")
        return 130
    return 0


# --- the commands, in the order of the stages -------------------------------------------------------------------------


def _inspect(options: argparse.Namespace) -> None:
    from segwright.inspection.dataset import inspect_dataset

    inspect_dataset(options.dataset, options.output, workers=options.workers)
    log.info("no errors; see %s", options.output / "checks.tsv")


def _plan(options: argparse.Namespace) -> None:
    from dataclasses import replace

    from segwright.core.configfile import pipeline_settings_from_file
    from segwright.core.files import read_json
    from segwright.core.registry import load_plugins
    from segwright.planning.planner import make_plans
    from segwright.planning.slices import write_plan_folder

    load_plugins(options.plugin)
    settings = pipeline_settings_from_file(options.settings)
    planning = settings.planning
    if options.planner is not None:
        planning = replace(planning, planner=options.planner)
    if options.gpu_memory_gb is not None:
        planning = replace(planning, gpu_memory_gb=options.gpu_memory_gb)
    if options.spacing is not None:
        planning = replace(planning, spacing_mm=tuple(options.spacing))
    facts = read_json(options.dataset_json)
    fingerprint = read_json(options.fingerprint)
    name = options.name or options.dataset_json.resolve().parent.name
    reader = fingerprint.get("segwright", {}).get("reader")
    plans, reasons = make_plans(fingerprint, facts, planning, dataset_name=name, reader=reader)
    write_plan_folder(options.output, plans, reasons, facts, settings.preprocessing)
    log.info("plans: %s", options.output / "plans.json")


def _preprocess(options: argparse.Namespace) -> None:
    from segwright.core.configfile import pipeline_settings_from_file
    from segwright.core.dataset import load_dataset
    from segwright.core.files import read_json, write_json
    from segwright.core.plans import Plans, preprocess_slice
    from segwright.inspection.batch import inspect_batch
    from segwright.preprocessing.batch import preprocess_batch, write_index

    dataset = load_dataset(options.dataset)
    preprocessing = pipeline_settings_from_file(options.settings).preprocessing
    plans = Plans.from_json(read_json(options.plans))
    plan = preprocess_slice(
        plans,
        options.configuration,
        dataset.labels,
        dataset.channel_names,
        preprocessing.label_resize,
        preprocessing.order_of_steps,
    )
    records = options.output / "inspection" / "batch_0.json"
    inspect_batch(
        dataset, [case.case_id for case in dataset.training], records, records.parent, workers=options.workers
    )
    batch = options.output / "batch_0.json"
    preprocess_batch(dataset, records, plan, batch, options.output / "cases", workers=options.workers)
    write_json(options.output / "preprocess.json", plan.to_json())
    write_index([batch], options.output / "index.json")
    log.info("%d cases: %s", len(dataset.training), options.output)


def _train(options: argparse.Namespace) -> None:
    from dataclasses import replace

    from segwright.core.configfile import pipeline_settings_from_file
    from segwright.core.settings import ExecutionSettings
    from segwright.training.machine import leased_device

    settings = pipeline_settings_from_file(options.settings).training
    if options.epochs is not None:
        settings = replace(settings, epochs=options.epochs)
    with leased_device(ExecutionSettings(device=options.device)) as device:
        from segwright.core.files import read_json
        from segwright.core.plans import Plans, PreprocessPlan, train_slice
        from segwright.splits import fold_of_splits_file
        from segwright.training.fold import train_fold
        from segwright.training.request import TrainingRequest

        labels = PreprocessPlan.from_json(read_json(options.preprocessed / "preprocess.json")).labels
        plan = train_slice(Plans.from_json(read_json(options.plans)), options.configuration, labels)
        train_fold(
            TrainingRequest(
                plan=plan,
                settings=settings.resolved(),
                index=options.preprocessed / "index.json",
                fold=fold_of_splits_file(options.splits, options.fold, options.preprocessed / "index.json"),
                output=options.output,
                device=device,
                workers=options.workers,
                next_stage=options.previous_stage,
                initial_model=options.initial_model,
                deadline=None,
                plugins=tuple(options.plugin),
            )
        )
    log.info("model: %s", options.output / "model.safetensors")


def _predict(options: argparse.Namespace) -> None:
    from segwright.core.settings import ExecutionSettings
    from segwright.training.machine import leased_device

    with leased_device(ExecutionSettings(device=options.device)) as device:
        from segwright.sharing.model import open_model
        from segwright.sharing.use import predict_with_model

        with open_model(options.model) as model:
            predict_with_model(
                model,
                options.input[0] if len(options.input) == 1 and options.input[0].is_dir() else options.input,
                options.output,
                folds=options.folds,
                mirroring=not options.no_mirroring,
                save_probabilities=options.save_probabilities,
                device=device,
                plugins=tuple(options.plugin),
            )
    log.info("segmentations: %s", options.output)


def _evaluate(options: argparse.Namespace) -> None:
    from segwright.evaluation.summary import evaluate_folders

    summary = evaluate_folders(options.reference, options.prediction, options.dataset_json, options.output)
    log.info("mean foreground Dice %.4f: %s", summary.foreground_mean["Dice"], options.output)


def _ensemble(options: argparse.Namespace) -> None:
    from segwright.selection.folders import ensemble_folders

    ensemble_folders(options.inputs, options.output)
    log.info("segmentations: %s", options.output)


def _postprocess(options: argparse.Namespace) -> None:
    from segwright.selection.folders import postprocess_folder

    postprocess_folder(options.input, options.rules, options.output)
    log.info("segmentations: %s", options.output)


def _convert(options: argparse.Namespace) -> None:
    from segwright.conversion.msd import convert_msd
    from segwright.conversion.v1 import convert_v1

    if options.format == "msd":
        made = convert_msd(options.input, options.output, dataset_id=options.dataset_id)
    else:
        made = convert_v1(options.input, options.output, name=options.name)
    log.info("dataset: %s", made)


def _phantom(options: argparse.Namespace) -> None:
    from segwright.phantom import make_phantom

    made = make_phantom(options.preset, options.cases, options.seed, options.output, test_cases=options.test_cases)
    log.info("dataset: %s", made)


def _status(options: argparse.Namespace) -> None:
    from segwright.status import status_lines

    sys.stdout.write("\n".join(status_lines(options.results)) + "\n")


# --- arguments --------------------------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="segwright",
        description="Self-configuring biomedical image segmentation. The whole line runs with Snakemake; "
        "these commands run its stages one by one.",
    )
    parser.add_argument("--version", action="version", version=f"segwright {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_data_commands(commands)
    _add_training_commands(commands)
    _add_result_commands(commands)
    return parser


def _add_data_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = _command(
        commands,
        "inspect",
        _inspect,
        "check a dataset and take its fingerprint",
        "--dataset data/Dataset004_Hippocampus --output checks/",
    )
    command.add_argument(
        "--dataset", type=Path, required=True, metavar="DIR", help="raw dataset folder (nnU-Net v2 layout)"
    )
    command.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="DIR",
        help="for checks.tsv, checks.json, dataset_fingerprint.json",
    )
    _workers(command)

    command = _command(
        commands,
        "plan",
        _plan,
        "plan all configurations",
        "--fingerprint checks/dataset_fingerprint.json --dataset-json data/Dataset004/dataset.json --output plan/",
    )
    command.add_argument(
        "--fingerprint", type=Path, required=True, metavar="FILE", help="dataset_fingerprint.json, ours or nnU-Net v2's"
    )
    command.add_argument("--dataset-json", type=Path, required=True, metavar="FILE", help="the dataset's dataset.json")
    command.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="for plans.json, reasons.md and the slices"
    )
    command.add_argument("--planner", metavar="NAME", help="default, resenc, resenc_m, resenc_l or resenc_xl")
    command.add_argument("--gpu-memory-gb", type=float, metavar="X", help="memory target instead of the planner's own")
    command.add_argument(
        "--spacing", type=float, nargs=3, metavar="MM", help="target spacing, axes as in the images (z y x)"
    )
    command.add_argument(
        "--name", metavar="NAME", help="dataset name in the plans; default: the folder of dataset.json"
    )
    _settings(command)
    _plugins(command)

    command = _command(
        commands,
        "preprocess",
        _preprocess,
        "preprocess a dataset for one configuration",
        "--dataset data/Dataset004 --plans plan/plans.json --configuration 3d_fullres --output preprocessed/",
    )
    command.add_argument("--dataset", type=Path, required=True, metavar="DIR", help="raw dataset folder")
    command.add_argument("--plans", type=Path, required=True, metavar="FILE", help="plans.json, ours or nnU-Net v2's")
    command.add_argument("--configuration", required=True, metavar="NAME", help="2d, 3d_fullres, 3d_lowres, ...")
    command.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder of the store")
    _settings(command)
    _workers(command)

    command = _command(
        commands,
        "convert",
        _convert,
        "convert a dataset to nnU-Net v2's raw layout",
        "msd --input Task04_Hippocampus --output data/",
    )
    command.add_argument("format", choices=("msd", "v1"), help="Medical Segmentation Decathlon, or nnU-Net v1 raw")
    command.add_argument("--input", type=Path, required=True, metavar="DIR", help="the task's folder")
    command.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="DIR",
        help="parent folder of the new dataset; nothing is overwritten",
    )
    command.add_argument("--dataset-id", type=int, metavar="N", help="number instead of the task's (msd)")
    command.add_argument("--name", metavar="NAME", help="name of the new dataset (v1)")

    command = _command(
        commands,
        "phantom",
        _phantom,
        "make a synthetic dataset",
        "--preset plain --cases 10 --seed 1 --output data/Dataset900_Phantom",
    )
    command.add_argument(
        "--preset",
        required=True,
        metavar="NAME",
        help="plain, regions, ignore, regions_ignore, ct, anisotropic, 2d or large",
    )
    command.add_argument("--cases", type=int, required=True, metavar="N", help="number of training cases")
    command.add_argument("--test-cases", type=int, default=2, metavar="N", help="number of test cases (default 2)")
    command.add_argument("--seed", type=int, default=0, metavar="S", help="the same seed gives the same files")
    command.add_argument("--output", type=Path, required=True, metavar="DIR", help="the dataset folder to make")


def _add_training_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = _command(
        commands,
        "train",
        _train,
        "train one fold of one configuration",
        "--plans plans.json --configuration 2d --preprocessed pre/ --splits splits.json --fold 0 --output fold_0/",
    )
    command.add_argument("--plans", type=Path, required=True, metavar="FILE", help="plans.json")
    command.add_argument("--configuration", required=True, metavar="NAME", help="2d, 3d_fullres, ...")
    command.add_argument(
        "--preprocessed", type=Path, required=True, metavar="DIR", help="what `segwright preprocess` made"
    )
    command.add_argument(
        "--splits", type=Path, required=True, metavar="FILE", help="splits.json (nnU-Net v2's splits_final.json)"
    )
    command.add_argument("--fold", required=True, metavar="K", help="0, 1, ... or all")
    command.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="folder of the fold; run again to continue"
    )
    command.add_argument("--epochs", type=int, metavar="N", help="instead of the schedule's")
    command.add_argument(
        "--previous-stage", type=Path, metavar="FILE", help="next_stage.json of the previous stage (cascade)"
    )
    command.add_argument("--initial-model", type=Path, metavar="FILE", help="model.safetensors to start from")
    command.add_argument(
        "--workers", type=int, default=0, metavar="N", help="processes that load and augment (default 0: none)"
    )
    _settings(command)
    _device(command)
    _plugins(command)

    command = _command(
        commands,
        "predict",
        _predict,
        "segment new images with a model",
        "--model model.zip --input images/ --output segmentations/",
    )
    command.add_argument("--model", type=Path, required=True, metavar="DIR|ZIP", help="a packaged model")
    command.add_argument(
        "--input",
        type=Path,
        nargs="+",
        required=True,
        metavar="DIR|FILE",
        help="a folder of <case>_<channel><ending>, or such files",
    )
    command.add_argument("--output", type=Path, required=True, metavar="DIR", help="for the segmentations")
    command.add_argument("--folds", nargs="+", metavar="K", help="use only these folds")
    command.add_argument("--no-mirroring", action="store_true", help="up to 8 times faster, slightly less accurate")
    command.add_argument("--save-probabilities", action="store_true", help="also write class probabilities")
    _device(command)
    _plugins(command)


def _add_result_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = _command(
        commands,
        "evaluate",
        _evaluate,
        "score segmentations against references",
        "--reference labelsTs/ --prediction segmentations/ --dataset-json dataset.json --output summary.json",
    )
    command.add_argument("--reference", type=Path, required=True, metavar="DIR", help="folder of reference label files")
    command.add_argument(
        "--prediction", type=Path, required=True, metavar="DIR", help="folder of predicted label files"
    )
    command.add_argument("--dataset-json", type=Path, required=True, metavar="FILE", help="labels and file ending")
    command.add_argument("--output", type=Path, required=True, metavar="FILE", help="summary.json")

    command = _command(
        commands,
        "ensemble",
        _ensemble,
        "average saved probabilities of several predictions",
        "--inputs a/ b/ --output ensemble/",
    )
    command.add_argument(
        "--inputs",
        type=Path,
        nargs="+",
        required=True,
        metavar="DIR",
        help="outputs of `segwright predict --save-probabilities`",
    )
    command.add_argument("--output", type=Path, required=True, metavar="DIR", help="for the segmentations")

    command = _command(
        commands,
        "postprocess",
        _postprocess,
        "apply postprocessing rules",
        "--input segmentations/ --rules postprocessing.json --output final/",
    )
    command.add_argument("--input", type=Path, required=True, metavar="DIR", help="folder of label files")
    command.add_argument("--rules", type=Path, required=True, metavar="FILE", help="postprocessing.json")
    command.add_argument("--output", type=Path, required=True, metavar="DIR", help="another folder")

    command = _command(commands, "status", _status, "what is done, running and failed in a results folder", "results")
    command.add_argument(
        "results", type=Path, nargs="?", default=Path("results"), metavar="RESULTS", help="default: results"
    )


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    command: Command,
    help_text: str,
    example: str,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=help_text,
        description=help_text[0].upper() + help_text[1:] + ".",
        epilog=f"example: segwright {name} {example}",
    )
    parser.set_defaults(command=command)
    parser.add_argument("--debug", action="store_true", help="show a traceback also for errors you can mend")
    return parser


def _settings(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--settings", type=Path, metavar="FILE", help="YAML with sections planning, preprocessing, training, ..."
    )


def _workers(command: argparse.ArgumentParser) -> None:
    command.add_argument("--workers", type=int, default=1, metavar="N", help="cases at a time (default 1)")


def _device(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--device", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="default auto: CUDA if there is one"
    )


def _plugins(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--plugin",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="Python file that registers a network, loss, ...",
    )


if __name__ == "__main__":
    sys.exit(main())
