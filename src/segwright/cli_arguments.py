"""The arguments of the ``segwright`` command. Imports nothing of the library, so that ``--help`` answers at once."""

from __future__ import annotations

import argparse
from pathlib import Path

from segwright import __version__

_Subparsers = argparse._SubParsersAction  # argparse has no public name for what add_subparsers returns


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
    _add_convert(commands)
    _add_phantom(commands)
    _add_status(commands)
    return parser


# --- one function a subcommand, in the order of the stages ------------------------------------------------------------


def _add_inspect(commands: _Subparsers[argparse.ArgumentParser]) -> None:
    command = _command(
        commands,
        "inspect",
        "check a dataset and take its fingerprint",
        "--dataset data/Dataset004_Hippocampus --output checks/",
    )
    _path(command, "--dataset", "DIR", "raw dataset folder (nnU-Net v2 layout)")
    _path(command, "--output", "DIR", "for checks.tsv, checks.json, dataset_fingerprint.json")
    _workers(command)


def _add_plan(commands: _Subparsers[argparse.ArgumentParser]) -> None:
    command = _command(
        commands,
        "plan",
        "plan all configurations",
        "--fingerprint checks/dataset_fingerprint.json --dataset-json data/Dataset004/dataset.json --output plan/",
    )
    _path(command, "--fingerprint", "FILE", "dataset_fingerprint.json, ours or nnU-Net v2's")
    _path(command, "--dataset-json", "FILE", "the dataset's dataset.json")
    _path(command, "--output", "DIR", "for plans.json, reasons.md and the slices")
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
    _settings(command)
    _plugins(command)


def _add_preprocess(commands: _Subparsers[argparse.ArgumentParser]) -> None:
    command = _command(
        commands,
        "preprocess",
        "preprocess a dataset for one configuration",
        "--dataset data/Dataset004 --plans plan/plans.json --configuration 3d_fullres --output preprocessed/",
    )
    _path(command, "--dataset", "DIR", "raw dataset folder")
    _path(command, "--plans", "FILE", "plans.json, ours or nnU-Net v2's")
    command.add_argument("--configuration", required=True, metavar="NAME", help="2d, 3d_fullres, 3d_lowres, ...")
    _path(command, "--output", "DIR", "folder of the store; one a configuration")
    _settings(command)
    _workers(command)


def _add_train(commands: _Subparsers[argparse.ArgumentParser]) -> None:
    command = _command(
        commands,
        "train",
        "train one fold of one configuration",
        "--plans plans.json --configuration 2d --preprocessed pre/ --splits splits.json --fold 0 --output 2d/fold_0/",
    )
    _path(command, "--plans", "FILE", "plans.json, ours or nnU-Net v2's")
    command.add_argument("--configuration", required=True, metavar="NAME", help="2d, 3d_fullres, ...")
    _path(command, "--preprocessed", "DIR", "what `segwright preprocess` made")
    _path(command, "--splits", "FILE", "splits.json, or nnU-Net v2's splits_final.json")
    command.add_argument("--fold", required=True, metavar="K", help="0, 1, ... or all")
    _path(command, "--output", "DIR", "folder of the fold; run the same command again to continue")
    command.add_argument("--epochs", type=int, metavar="N", help="instead of the schedule's")
    _path(command, "--previous-stage", "FILE", "next_stage.json of the previous stage (cascade)", required=False)
    _path(command, "--initial-model", "FILE", "model.safetensors to start from", required=False)
    command.add_argument(
        "--workers",
        type=_whole_number,
        default=0,
        metavar="N",
        help="processes that load and augment (default 0: none)",
    )
    _settings(command)
    _device(command)
    _plugins(command)


def _add_predict(commands: _Subparsers[argparse.ArgumentParser]) -> None:
    command = _command(
        commands,
        "predict",
        "segment new images with a model",
        "--model model.zip --input images/ --output segmentations/",
    )
    _path(command, "--model", "DIR|ZIP", "a packaged model")
    _paths(command, "--input", "DIR|FILE", "folders of <case>_<channel><ending>, or such files")
    _path(command, "--output", "DIR", "for the segmentations")
    command.add_argument("--folds", nargs="+", metavar="K", help="use only the models of these folds")
    command.add_argument("--no-mirroring", action="store_true", help="up to 8 times faster, slightly less accurate")
    command.add_argument("--save-probabilities", action="store_true", help="also write class probabilities")
    _device(command)
    _plugins(command)


def _add_evaluate(commands: _Subparsers[argparse.ArgumentParser]) -> None:
    command = _command(
        commands,
        "evaluate",
        "score segmentations against references",
        "--reference labelsTs/ --prediction segmentations/ --dataset-json dataset.json --output summary.json",
    )
    _path(command, "--reference", "DIR", "folder of reference label files")
    _path(command, "--prediction", "DIR", "folder of predicted label files")
    _path(command, "--dataset-json", "FILE", "says labels and file ending")
    _path(command, "--output", "FILE", "summary.json to write (nnU-Net v2's format)")
    command.add_argument("--partial", action="store_true", help="allow references without a prediction")
    _workers(command)


def _add_ensemble(commands: _Subparsers[argparse.ArgumentParser]) -> None:
    command = _command(
        commands,
        "ensemble",
        "average the saved probabilities of several predictions",
        "--inputs a/ b/ --output ensemble/",
    )
    _paths(command, "--inputs", "DIR", "outputs of `segwright predict --save-probabilities`")
    _path(command, "--output", "DIR", "for the segmentations")
    _path(command, "--dataset-json", "FILE", "default: the one in the first input folder", required=False)
    command.add_argument("--save-probabilities", action="store_true", help="also write the averaged probabilities")
    _workers(command)


def _add_postprocess(commands: _Subparsers[argparse.ArgumentParser]) -> None:
    command = _command(
        commands,
        "postprocess",
        "apply postprocessing rules",
        "--input segmentations/ --rules postprocessing.json --output final/",
    )
    _path(command, "--input", "DIR", "folder of label files")
    _path(command, "--rules", "FILE", "postprocessing.json")
    _path(command, "--output", "DIR", "another folder")
    _path(command, "--dataset-json", "FILE", "default: the one in the input folder", required=False)
    _workers(command)


def _add_convert(commands: _Subparsers[argparse.ArgumentParser]) -> None:
    command = _command(
        commands,
        "convert",
        "convert a dataset to nnU-Net v2's raw layout",
        "msd --input Task04_Hippocampus --output data/",
    )
    command.add_argument("format", choices=("msd", "v1"), help="Medical Segmentation Decathlon, or nnU-Net v1 raw")
    _path(command, "--input", "DIR", "the task's folder")
    _path(command, "--output", "DIR", "parent folder of the new dataset; nothing is overwritten")
    command.add_argument("--dataset-id", type=int, metavar="N", help="number instead of the task's (msd)")
    command.add_argument("--name", metavar="NAME", help="name of the new dataset (v1)")


def _add_phantom(commands: _Subparsers[argparse.ArgumentParser]) -> None:
    command = _command(
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
        "--seed", type=_whole_number, default=0, metavar="S", help="the same seed gives the same files (default 0)"
    )
    _path(command, "--output", "DIR", "the dataset folder to make")


def _add_status(commands: _Subparsers[argparse.ArgumentParser]) -> None:
    command = _command(commands, "status", "what is done, running and failed in a results folder", "results")
    command.add_argument(
        "results", type=Path, nargs="?", default=Path("results"), metavar="RESULTS", help="default: results"
    )


# --- what several subcommands share -----------------------------------------------------------------------------------


def _command(
    commands: _Subparsers[argparse.ArgumentParser], name: str, help_text: str, example: str
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=help_text,
        description=help_text[0].upper() + help_text[1:] + ".",
        epilog=f"example:\n  segwright {name} {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,  # or the example would be broken anywhere
    )
    parser.add_argument("--debug", action="store_true", help="show a traceback also for errors you can mend")
    return parser


def _path(command: argparse.ArgumentParser, name: str, metavar: str, help_text: str, *, required: bool = True) -> None:
    command.add_argument(name, type=Path, required=required, metavar=metavar, help=help_text)


def _paths(command: argparse.ArgumentParser, name: str, metavar: str, help_text: str) -> None:
    command.add_argument(name, type=Path, nargs="+", required=True, metavar=metavar, help=help_text)


def _settings(command: argparse.ArgumentParser) -> None:
    _path(command, "--settings", "FILE", "YAML with sections planning, preprocessing, training, ...", required=False)


def _workers(command: argparse.ArgumentParser) -> None:
    command.add_argument("--workers", type=_positive_number, default=1, metavar="N", help="cases at a time (default 1)")


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
        help="Python file that registers a network, loss, ...; may be given several times",
    )


def _whole_number(text: str) -> int:
    return _number_from(text, 0)


def _positive_number(text: str) -> int:
    return _number_from(text, 1)


def _number_from(text: str, least: int) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"must be a whole number from {least} on, not {text!r}")
    return int(text)
