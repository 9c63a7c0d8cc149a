"""Atomic writes, JSON and digests: the only way results get onto disk.

A file is written under a temporary name in its own folder, flushed to disk and renamed, so that a reader
sees the old file or the new one, never half of one.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from segwright.core.errors import DamagedFileError, DatasetError, StorageError

_CHUNK_BYTES = 1 << 20
_FULL_BYTES = 1 << 20  # a disk with less than this left is why something could not be written
_FREE_SPACE = "free some space"
_MANY_DIGITS = re.compile(r"\d{19}")
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_LONGEST_NUMBER = 20  # characters of a 64-bit number
_NO_FOLDER_FLUSH = (errno.EACCES, errno.EBADF, errno.EINVAL, errno.ENOTSUP)
TEMPORARY_PREFIX = ".part-"
_TEMPORARY_DIGITS = 12
SEAL = "seal"
"""Key under which a sealed JSON file keeps the digest of the rest of its content."""
DELETE_FILE = "delete it and run again"
DELETE_FOLDER = "delete the folder it lies in and run again"
"""For files of a step whose whole folder is its result."""


@contextlib.contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path in the folder of ``path``; on success flush it and rename it to ``path``.

    The temporary name keeps the file ending, because image writers choose the format by it. If the body
    raises, the temporary file is removed and ``path`` stays as it was.

    Raises:
        StorageError: the disk is full, a quota is used up, or the folder cannot be written to.
    """
    path = Path(path)
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex[:_TEMPORARY_DIGITS]}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _flush_to_disk(temporary)
        os.replace(temporary, path)
        _flush_folder(path.parent)
    except OSError as error:
        problem = storage_error(path, error)
        if problem is None:
            raise
        raise problem from error
    except (
        RuntimeError,
        DatasetError,
    ) as error:  # image writers say in words of their own that it could not be written
        if path.parent.is_dir() and shutil.disk_usage(path.parent).free < _FULL_BYTES:
            raise StorageError(_storage_text(path, "no space is left", _FREE_SPACE)) from error
        raise
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_bytes(path: Path | str, content: bytes) -> None:
    """Write ``content`` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path | str, content: str) -> None:
    """Write UTF-8 text atomically."""
    write_bytes(path, content.encode("utf-8"))


def write_json(path: Path | str, value: Any, *, sort_keys: bool = True, sealed: bool | str = False) -> None:
    """Write JSON atomically: indented, keys sorted (unless a schema fixes their order), one newline at the end.

    Args:
        sealed: add the digest of a dictionary's content, so that :func:`read_json` notices a file that was altered. For
            results nobody edits; files that people write or other programs read are not sealed. A text says what to do
            then, where deleting the file alone does not help.
    """
    if sealed:
        value = with_seal(value, sealed if isinstance(sealed, str) else DELETE_FILE)
    write_text(path, json_text(value, sort_keys=sort_keys))


def with_seal(value: Mapping[str, Any], remedy: str = DELETE_FILE) -> dict[str, Any]:
    """The dictionary with the digest of its content as it will be read back, and what to do if that does not fit."""
    read_back = json.loads(json.dumps(value, sort_keys=True, ensure_ascii=False, default=_plain))
    return {**value, SEAL: {"sha256": json_digest(read_back), "if_it_does_not_fit": remedy}}


def json_text(value: Any, *, sort_keys: bool = True) -> str:
    """The project's one JSON form. Equal values give equal text, which is what content comparison rests on."""
    return json.dumps(value, indent=2, sort_keys=sort_keys, ensure_ascii=False, default=_plain) + "\n"


def read_json(path: Path | str, remedy: str | None = None) -> Any:
    """Read a JSON file. The seal of a sealed one is checked and left out.

    Whole numbers beyond 64 bits are refused: nothing is counted in them, and they overflow when made floats.

    Args:
        remedy: what to do if it is missing or no JSON, where one knows better than "delete it".

    Raises:
        DamagedFileError: it is missing, cannot be read, is not JSON, or its content does not fit its seal.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        value = json.loads(text, parse_int=_whole_number if _MANY_DIGITS.search(text) else None)
        if _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode("utf-8")  # half a character could never be written again
    except FileNotFoundError:
        raise DamagedFileError(path, "the file does not exist", remedy or "make it, or correct the path") from None
    except OSError as error:
        raise DamagedFileError(path, f"cannot be read ({error.strerror})", "correct the path or its rights") from error
    except (ValueError, RecursionError) as error:  # wrong encodings and JSON's own errors are ValueErrors
        remedy = remedy or "correct it, or delete it and run again if segwright made it"
        raise DamagedFileError(path, f"not valid JSON ({error})", remedy) from error
    return _without_seal(path, value)


def _whole_number(digits: str) -> int:
    """A number of a JSON file, if 64 bits hold it. Raises ValueError."""
    number = int(digits) if len(digits) <= _LONGEST_NUMBER else 1 << 64
    if not -(1 << 63) <= number < 1 << 64:
        raise ValueError(f"a number of {len(digits)} digits")
    return number


def bytes_digest(content: bytes) -> str:
    """SHA-256 of bytes, as 64 hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def file_digest(path: Path | str) -> str:
    """SHA-256 of a file's content, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def json_digest(value: Any) -> str:
    """SHA-256 of a value's canonical JSON: independent of key order and white space."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=_plain)
    return bytes_digest(text.encode("ascii"))


def relative_name(path: Path, folder: Path) -> str:
    """``path`` as seen from ``folder``, with forward slashes: the same on every machine."""
    return Path(os.path.relpath(path, folder)).as_posix()


def remove_temporary_files(folder: Path | str) -> None:
    """Remove what killed writers left in ``folder`` (not in its subfolders)."""
    for leftover in Path(folder).glob(f"{TEMPORARY_PREFIX}*"):
        leftover.unlink(missing_ok=True)


def remove_leftovers(paths: Iterable[Path]) -> None:
    """Remove what killed writers of these files left beside them. What others write into the same folders stays."""
    names: dict[Path, set[str]] = {}
    for path in paths:
        names.setdefault(path.parent, set()).add(path.name)
    for folder, wanted in names.items():
        for leftover in folder.glob(f"{TEMPORARY_PREFIX}*"):
            if intended_name(leftover) in wanted:
                leftover.unlink(missing_ok=True)


def intended_name(path: Path) -> str:
    """The name a file that is being written will get; that of any other file is its own."""
    written = path.name.startswith(TEMPORARY_PREFIX)
    return path.name[len(TEMPORARY_PREFIX) + _TEMPORARY_DIGITS + 1 :] if written else path.name


def storage_error(path: Path, error: OSError) -> StorageError | None:
    """The error in words, if it comes from the place that is written to and not from what is read meanwhile.

    Args:
        path: the file that was to be written.
    """
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        what = "no space is left" if error.errno == errno.ENOSPC else "your quota is used up"
        return StorageError(_storage_text(path, what, _FREE_SPACE))
    here = error.filename is None or Path(str(error.filename)).parent in (path.parent, *path.parents)
    if here and error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        what = "the file system is read-only" if error.errno == errno.EROFS else "you may not write there"
        return StorageError(_storage_text(path, what, "make the folder writable, or put the results elsewhere"))
    if here and error.errno == errno.EIO:
        return StorageError(_storage_text(path, "the disk reports an error", "look at the disk"))
    return None


def read_only_text(paths: Iterable[Path | str]) -> str | None:
    """Which folder is read-only among those these files are to be made in, and why; None if all can be made."""
    for folder in dict.fromkeys(_existing_folder(Path(path)) for path in paths):
        if not os.access(folder, os.W_OK):
            mounted = os.statvfs(folder).f_flag & os.ST_RDONLY
            why = "its file system is mounted read-only" if mounted else "you have no permission to write there"
            return f"{folder.absolute()} is read-only: {why}"
    return None


def _existing_folder(path: Path) -> Path:
    return next((parent for parent in path.parents if parent.is_dir()), path.parent)


def _storage_text(path: Path, what: str, remedy: str) -> str:
    folder = _existing_folder(path)
    with contextlib.suppress(OSError):
        what += f" ({shutil.disk_usage(folder).free / 2**20:.0f} MiB free)"
    return f"{path}: cannot be written, {what}; {remedy}, then run again. What was there before is unharmed"


def _without_seal(path: Path, value: Any) -> Any:
    """The content of a JSON file after its seal, if it has one, was found to fit."""
    if not isinstance(value, dict) or SEAL not in value:
        return value
    seal = value.pop(SEAL)
    known = isinstance(seal, dict)
    if not known or seal.get("sha256") != json_digest(value):
        remedy = str(seal.get("if_it_does_not_fit", DELETE_FILE)) if known else DELETE_FILE
        raise DamagedFileError(path, "its content is not what was written (the digest in it does not fit)", remedy)
    return value


def _plain(value: Any) -> Any:
    """Turn numpy scalars and arrays, paths and sets into what JSON knows."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Path):
        return value.as_posix()
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def _flush_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _flush_folder(folder: Path) -> None:
    """Flush the new name of a file too, where that can be done.

    Some network file systems flush no folders, and who may write in a folder need not be allowed to read it.
    """
    try:
        _flush_to_disk(folder)
    except OSError as error:
        if error.errno not in _NO_FOLDER_FLUSH:
            raise
