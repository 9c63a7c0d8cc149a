"""The arguments of the ``segwright`` command. Imports nothing of the library, so that ``--help`` answers at once."""

from __future__ import annotations

import argparse
from pathlib import Path

from segwright import __version__
from segwright.cli_options import (
    Subparsers,
    device_option,
    new_command,
    path_option,
    paths_option,
    plugins_option,
    settings_option,
    whole_number,
    workers_option,
)


def make_parser() -> argparse.ArgumentParser:
    """The whole command line; ``parse_args`` leaves the subcommand's name in ``command``."""
    parser = argparse.ArgumentParser(
        prog="segwright",
        description="Self-configuring biomedical image segmentation. The whole line runs with Snakemake; "
        "these commands run its stages one by one.",
        epilog="Each command has --help with an example.",
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=18),  # names and help in one line
    )
    parser.add_argument("--version", action="version", version=f"segwright {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_inspect(commands)
    _add_plan(commands)
    _add_preprocess(commands)
    _add_train(commands)
    _add_predict(commands)
    _add_evaluate(commands)
    _add_ensemble(commands)
    _add_postprocess(commands)
    _add_import_model(commands)
    _add_export_model(commands)
    _add_convert(commands)
    _add_phantom(commands)
    _add_status(commands)
    return parser


# --- one function a subcommand, in the order of the stages ------------------------------------------------------------


def _add_inspect(commands: Subparsers[argparse.ArgumentParser]) -> None:
    command = new_command(
        commands,
        "inspect",
        "check a dataset and take its fingerprint",
        "--dataset data/Dataset004_Hippocampus --output checks/",
    )
    path_option(command, "--dataset", "DIR", "raw dataset folder (nnU-Net v2 layout)")
    path_option(command, "--output", "DIR", "for checks.tsv, checks.json, dataset_fingerprint.json")
    workers_option(command)


def _add_plan(commands: Subparsers[argparse.ArgumentParser]) -> None:
    command = new_command(
        commands,
        "plan",
        "plan all configurations",
        "--fingerprint checks/dataset_fingerprint.json --dataset-json data/Dataset004/dataset.json --output plan/",
    )
    path_option(command, "--fingerprint", "FILE", "dataset_fingerprint.json, ours or nnU-Net v2's")
    path_option(command, "--dataset-json", "FILE", "the dataset's dataset.json")
    path_option(command, "--output", "DIR", "for plans.json, reasons.md and the slices")
    command.add_argument("--planner", metavar="NAME", help="default, resenc, resenc_m, resenc_l or resenc_xl")
    command.add_argument("--gpu-memory-gb", type=float, metavar="X", help="memory target instead of the planner's own")
    command.add_argument(
        "--spacing",
        type=float,
        nargs=3,
        metavar=("Z", "Y", "X"),
        help="target spacing in millimetres, axes as in the images",
    )
    command.add_argument("--name", metavar="NAME", help="dataset name in the plans; default: dataset.json's folder")
    settings_option(command)
    plugins_option(command)


def _add_preprocess(commands: Subparsers[argparse.ArgumentParser]) -> None:
    command = new_command(
        commands,
        "preprocess",
        "preprocess a dataset for one or more configurations",
        "--dataset data/Dataset004 --plans plan/plans.json --configuration 3d_fullres --output preprocessed/",
    )
    path_option(command, "--dataset", "DIR", "raw dataset folder")
    path_option(command, "--plans", "FILE", "plans.json, ours or nnU-Net v2's")
    names = "2d, 3d_fullres, 3d_lowres, ...; several are inspected once"
    command.add_argument("--configuration", required=True, nargs="+", metavar="NAME", help=names)
    path_option(command, "--output", "DIR", "folder of the store; of several configurations DIR/NAME")
    settings_option(command)
    workers_option(command)


def _add_train(commands: Subparsers[argparse.ArgumentParser]) -> None:
    command = new_command(
        commands,
        "train",
        "train one fold of one configuration",
        "--plans plans.json --configuration 2d --preprocessed pre/ --splits splits.json --fold 0 --output 2d/fold_0/",
    )
    path_option(command, "--plans", "FILE", "plans.json, ours or nnU-Net v2's")
    command.add_argument("--configuration", required=True, metavar="NAME", help="2d, 3d_fullres, ...")
    path_option(command, "--preprocessed", "DIR", "what `segwright preprocess` made")
    path_option(command, "--splits", "FILE", "splits.json, or nnU-Net v2's splits_final.json")
    command.add_argument("--fold", required=True, metavar="K", help="0, 1, ... or all")
    path_option(command, "--output", "DIR", "folder of the fold; run the same command again to continue")
    command.add_argument("--epochs", type=int, metavar="N", help="instead of the schedule's")
    path_option(command, "--previous-stage", "FILE", "next_stage.json of the previous stage (cascade)", required=False)
    path_option(command, "--initial-model", "FILE", "model.safetensors to start from", required=False)
    command.add_argument(
        "--workers",
        type=whole_number,
        default=0,
        metavar="N",
        help="processes that load and augment (default 0: none)",
    )
    settings_option(command)
    device_option(command)
    plugins_option(command)


def _add_predict(commands: Subparsers[argparse.ArgumentParser]) -> None:
    command = new_command(
        commands,
        "predict",
        "segment new images with a model",
        "--model model.zip --input images/ --output segmentations/",
    )
    path_option(command, "--model", "DIR|ZIP", "a packaged model")
    paths_option(command, "--input", "DIR|FILE", "folders of <case>_<channel><ending>, or such files")
    path_option(command, "--output", "DIR", "for the segmentations")
    command.add_argument("--folds", nargs="+", metavar="K", help="use only the models of these folds")
    command.add_argument("--no-mirroring", action="store_true", help="up to 8 times faster, slightly less accurate")
    command.add_argument("--save-probabilities", action="store_true", help="also write class probabilities")
    device_option(command)
    plugins_option(command)


def _add_evaluate(commands: Subparsers[argparse.ArgumentParser]) -> None:
    command = new_command(
        commands,
        "evaluate",
        "score segmentations against references",
        "--reference labelsTs/ --prediction segmentations/ --dataset-json dataset.json --output summary.json",
    )
    path_option(command, "--reference", "DIR", "folder of reference label files")
    path_option(command, "--prediction", "DIR", "folder of predicted label files")
    path_option(command, "--dataset-json", "FILE", "says labels and file ending")
    path_option(command, "--output", "FILE", "summary.json to write (nnU-Net v2's format)")
    command.add_argument("--partial", action="store_true", help="allow references without a prediction")
    workers_option(command)


def _add_ensemble(commands: Subparsers[argparse.ArgumentParser]) -> None:
    command = new_command(
        commands,
        "ensemble",
        "average the saved probabilities of several predictions",
        "--inputs a/ b/ --output ensemble/",
    )
    paths_option(command, "--inputs", "DIR", "outputs of `segwright predict --save-probabilities`")
    path_option(command, "--output", "DIR", "for the segmentations")
    path_option(command, "--dataset-json", "FILE", "default: the one in the first input folder", required=False)
    command.add_argument("--save-probabilities", action="store_true", help="also write the averaged probabilities")
    workers_option(command)


def _add_postprocess(commands: Subparsers[argparse.ArgumentParser]) -> None:
    command = new_command(
        commands,
        "postprocess",
        "apply postprocessing rules",
        "--input segmentations/ --rules postprocessing.json --output final/",
    )
    path_option(command, "--input", "DIR", "folder of label files")
    path_option(command, "--rules", "FILE", "postprocessing.json")
    path_option(command, "--output", "DIR", "another folder")
    path_option(command, "--dataset-json", "FILE", "default: the one in the input folder", required=False)
    workers_option(command)


def _add_import_model(commands: Subparsers[argparse.ArgumentParser]) -> None:
    command = new_command(
        commands,
        "import-model",
        "make a model of what nnU-Net v2 trained",
        "--input nnUNet_results/Dataset004_Hippocampus --output model/",
    )
    path_option(
        command, "--input", "DIR|ZIP", "results folder of a dataset or of one configuration, or an exported zip"
    )
    path_option(command, "--output", "DIR", "the model folder to make; nothing is overwritten")
    command.add_argument(
        "--configurations", nargs="+", metavar="NAME", help="instead of nnU-Net's selection; several are averaged"
    )
    command.add_argument("--folds", nargs="+", metavar="K", help="instead of nnU-Net's selection or all finished ones")


def _add_export_model(commands: Subparsers[argparse.ArgumentParser]) -> None:
    command = new_command(
        commands,
        "export-model",
        "write a model as a zip for nnU-Net v2",
        "--model model.zip --output for_nnunet.zip --format nnunetv2",
    )
    path_option(command, "--model", "DIR|ZIP", "a packaged model")
    path_option(command, "--output", "ZIP", "the file to make; nothing is overwritten")
    command.add_argument("--format", choices=("nnunetv2",), default="nnunetv2", help="default nnunetv2")
    command.add_argument("--dataset-id", type=int, metavar="N", help="number of the dataset in nnU-Net, if it has none")


def _add_convert(commands: Subparsers[argparse.ArgumentParser]) -> None:
    command = new_command(
        commands,
        "convert",
        "convert a dataset to nnU-Net v2's raw layout",
        "msd --input Task04_Hippocampus --output data/",
    )
    command.add_argument("format", choices=("msd", "v1"), help="Medical Segmentation Decathlon, or nnU-Net v1 raw")
    path_option(command, "--input", "DIR", "the task's folder")
    path_option(command, "--output", "DIR", "parent folder of the new dataset; nothing is overwritten")
    command.add_argument("--dataset-id", type=int, metavar="N", help="number instead of the task's (msd)")
    command.add_argument("--name", metavar="NAME", help="name of the new dataset, such as Dataset004_Hippocampus")


def _add_phantom(commands: Subparsers[argparse.ArgumentParser]) -> None:
    command = new_command(
        commands,
        "phantom",
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
    command.add_argument(
        "--seed", type=whole_number, default=0, metavar="S", help="the same seed gives the same files (default 0)"
    )
    path_option(command, "--output", "DIR", "the dataset folder to make")


def _add_status(commands: Subparsers[argparse.ArgumentParser]) -> None:
    command = new_command(commands, "status", "what is done, running and failed in a results folder", "results")
    command.add_argument(
        "results", type=Path, nargs="?", default=Path("results"), metavar="RESULTS", help="default: results"
    )
    path_option(
        command, "--configfile", "FILE", "show only the datasets and pipelines of this configuration", required=False
    )
