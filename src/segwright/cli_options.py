"""Options that several subcommands of ``segwright`` share. Imports nothing of the library."""

from __future__ import annotations

import argparse
from pathlib import Path

Subparsers = argparse._SubParsersAction  # argparse has no public name for what add_subparsers returns


def new_command(
    commands: Subparsers[argparse.ArgumentParser], name: str, help_text: str, example: str
) -> argparse.ArgumentParser:
    """A subcommand with its example and ``--debug``."""
    parser = commands.add_parser(
        name,
        help=help_text,
        description=help_text[0].upper() + help_text[1:] + ".",
        epilog=f"example:\n  segwright {name} {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,  # or the example would be broken anywhere
    )
    parser.add_argument("--debug", action="store_true", help="show a traceback also for errors you can mend")
    return parser


def path_option(
    command: argparse.ArgumentParser, name: str, metavar: str, help_text: str, *, required: bool = True
) -> None:
    command.add_argument(name, type=Path, required=required, metavar=metavar, help=help_text)


def paths_option(command: argparse.ArgumentParser, name: str, metavar: str, help_text: str) -> None:
    command.add_argument(name, type=Path, nargs="+", required=True, metavar=metavar, help=help_text)


def settings_option(command: argparse.ArgumentParser) -> None:
    path_option(
        command, "--settings", "FILE", "YAML with sections planning, preprocessing, training, ...", required=False
    )


def workers_option(command: argparse.ArgumentParser) -> None:
    command.add_argument("--workers", type=positive_number, default=1, metavar="N", help="cases at a time (default 1)")


def device_option(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--device", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="default auto: CUDA if there is one"
    )


def plugins_option(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--plugin",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="Python file that registers a network, loss, ...; may be given several times",
    )


def whole_number(text: str) -> int:
    return _number_from(text, 0)


def positive_number(text: str) -> int:
    return _number_from(text, 1)


def _number_from(text: str, least: int) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"must be a whole number from {least} on, not {text!r}")
    return int(text)
