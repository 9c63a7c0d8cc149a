"""Errors a user can mend. Everything that is not one of these is a bug and shows its traceback."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


class SegwrightError(Exception):
    """Base of all errors a user can mend.

    The message names the case, the file, what is wrong and what to do. Command line programs print it
    alone and exit with ``exit_code``.
    """

    exit_code = 2


MALFORMED = (AttributeError, LookupError, TypeError, ValueError, ArithmeticError, RecursionError)
"""What reading a record raises where it is not of the expected form: a key is missing, a list is a number, 1e400."""


def brief(value: object, limit: int = 120) -> str:
    """A value of a file as messages show it: never longer than ``limit``, whatever somebody wrote there."""
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def some(names: Iterable[str], limit: int = 5) -> str:
    """Names as messages list them, sorted: the first few, and how many more there are."""
    listed = sorted(names)
    return ", ".join(listed[:limit]) + (f" and {len(listed) - limit} more" if len(listed) > limit else "")


class SettingsError(SegwrightError):
    """A setting is unknown, of the wrong type or out of range."""


def named(things: Mapping[str, T], name: str, what: str) -> T:
    """The thing of this name and kind, where a user names it in the path of a result.

    Raises:
        SettingsError: there is none of this name.
    """
    if name not in things:
        raise SettingsError(f"there is no {what} {brief(name)} (there are: {some(things)}); ask for one of these")
    return things[name]


class DatasetError(SegwrightError):
    """A dataset, case or image file is not what it should be."""


class PlansError(SegwrightError):
    """Plans are inconsistent, or do not fit the dataset or the network."""


class TrainingError(SegwrightError):
    """A training cannot start or go on (diverged, worker died, wrong state, folder in use)."""


class ModelError(SegwrightError):
    """A model folder or archive cannot be used."""


class DamagedFileError(SegwrightError):
    """A file is truncated, was altered, or is not of the expected format."""

    def __init__(self, path: Path | str, problem: str, remedy: str = "delete it and run again") -> None:
        self.path = Path(path)
        super().__init__(f"{path}: {problem}; {remedy}")


class StorageError(SegwrightError):
    """A file cannot be written: the disk is full, a quota is used up, or the folder is read-only."""


class InterruptedForRetry(SegwrightError):
    """The job saved its state and wants to be started again (deadline reached or signal received)."""

    exit_code = 75  # EX_TEMPFAIL of sysexits.h: try again
