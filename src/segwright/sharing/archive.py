"""Zip archives of model folders: written with equal bytes for equal files, and extracted as if by an enemy's hand.

Extraction refuses path tricks, links, encrypted or strangely compressed entries, names that clash, names nobody
expects, and bombs; sizes are checked from the directory first and again while extracting. Nothing is overwritten. A
caller may name entries that are left out: they pass the same checks, but are never read or written.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import uuid
import zipfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from segwright.core.errors import ModelError, brief
from segwright.core.files import TEMPORARY_PREFIX, atomic_path

_CHUNK_BYTES = 1 << 20
_FIXED_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest a zip can hold: equal content gives equal bytes
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_NAME_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,199}")
_RESERVED_ON_WINDOWS = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
_NEVER_IN_NAMES = re.compile(r"[\x00-\x1f\x7f-\x9f\\:]")


@dataclass(frozen=True)
class Limits:
    """What an archive may hold at most.

    Attributes:
        entries: number of files.
        total_bytes: size of all files after extraction.
        file_bytes: size of one file after extraction.
        ratio: extracted size over compressed size, of the archive and of each entry above ``small_bytes``; weights
            hardly shrink.
        small_bytes: extracted size up to which the ratio says nothing: text that repeats itself shrinks a lot.
    """

    entries: int = 2000
    total_bytes: int = 64 << 30
    file_bytes: int = 8 << 30
    ratio: float = 100.0
    small_bytes: int = 1 << 20


DEFAULT_LIMITS = Limits()


def write_archive(archive: Path, folder: Path, names: Iterable[str]) -> None:
    """Pack files of a folder, uncompressed (weights do not shrink), in sorted order, without dates or owners.

    Args:
        names: relative names with forward slashes.
    """
    with atomic_path(archive) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as packed:
        for name in sorted(names):
            path = folder / name
            entry = zipfile.ZipInfo(name, _FIXED_DATE)
            entry.create_system = 3
            entry.external_attr = (stat.S_IFREG | 0o644) << 16
            entry.file_size = path.stat().st_size  # decides about the 64-bit form
            with path.open("rb") as source, packed.open(entry, "w") as target:
                shutil.copyfileobj(source, target, _CHUNK_BYTES)


def nothing(_: str) -> bool:
    """Leaves no entry out."""
    return False


def extract_archive(
    archive: Path,
    folder: Path,
    expected: Callable[[str], bool],
    limits: Limits = DEFAULT_LIMITS,
    left_out: Callable[[str], bool] = nothing,
) -> tuple[str, ...]:
    """Extract an archive to ``folder``, which must not exist yet; returns the names of the files.

    The files appear in a temporary folder beside ``folder`` that is renamed when everything went well.

    Args:
        expected: says whether a relative name may be in the archive at all.
        left_out: says whether an entry stays in the archive, whatever it is; its name may hold spaces and any letters.

    Raises:
        ModelError: the archive is damaged or could do harm, or ``folder`` exists. Nothing is left behind.
    """
    if folder.exists() or folder.is_symlink():
        raise ModelError(f"{folder}: exists already and is never overwritten; choose another folder or move it away")
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex[:12]}-{folder.name}")
    try:
        with zipfile.ZipFile(archive) as packed:
            entries = checked_entries(archive, packed, expected, limits, left_out)
            free = shutil.disk_usage(folder.parent).free
            needed = sum(entry.file_size for entry in entries)
            if needed > free:
                raise ModelError(
                    f"{archive}: needs {needed >> 20} MB in {folder.parent}, where {free >> 20} MB are free"
                )
            temporary.mkdir()
            for entry in entries:
                _extract(archive, packed, entry, temporary)
        if folder.exists():  # made by somebody else meanwhile; a rename would replace an empty folder silently
            raise ModelError(f"{folder}: exists already and is never overwritten; choose another folder")
        temporary.rename(folder)
    except FileNotFoundError as error:
        raise ModelError(f"{archive}: the file does not exist; correct the path") from error
    except (zipfile.BadZipFile, NotImplementedError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise ModelError(
            f"{archive}: not a valid zip file ({brief(str(error), 300)}); copy or download it again"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return tuple(entry.filename for entry in entries)


def checked_entries(
    archive: Path,
    packed: zipfile.ZipFile,
    expected: Callable[[str], bool],
    limits: Limits = DEFAULT_LIMITS,
    left_out: Callable[[str], bool] = nothing,
) -> list[zipfile.ZipInfo]:
    """The files of an opened archive to extract, after everything its directory says was found harmless.

    Raises:
        ModelError: names the archive, the entry and what is wrong with it.
    """
    entries = packed.infolist()
    if len(entries) > limits.entries:
        raise _refused(archive, f"it has {len(entries)} entries, more than {limits.entries}")
    seen: dict[str, str] = {}
    files: list[zipfile.ZipInfo] = []
    extracted: list[zipfile.ZipInfo] = []
    for entry in entries:
        name = entry.filename.removesuffix("/")
        stays = left_out(name)
        problem = _problem_of(entry, name, stays, limits)
        if problem is None:
            key = name if stays else name.casefold()  # on some disks names that differ in case are one file
            if key in seen:
                problem = f"it clashes with {brief(repr(seen[key]), 300)}"
            elif not (stays or entry.is_dir() or expected(name)):
                problem = "no such file belongs to a model"
            seen[key] = entry.filename
        if problem is not None:
            raise _refused(archive, f"entry {brief(repr(entry.orig_filename), 300)}: {problem}")
        if not entry.is_dir():
            files.append(entry)
            extracted += [] if stays else [entry]
    names = {entry.filename.casefold() for entry in files}
    for entry in files:
        if any(parent.as_posix().casefold() in names for parent in PurePosixPath(entry.filename).parents):
            raise _refused(archive, f"entry {brief(repr(entry.filename), 300)}: a folder of its path is also a file")
    total, needed = (sum(entry.file_size for entry in chosen) for chosen in (files, extracted))
    size = archive.stat().st_size
    if total > limits.total_bytes:
        raise _refused(archive, f"it would extract to {total} bytes, more than {limits.total_bytes}")
    if needed > limits.small_bytes and needed > limits.ratio * size:
        raise _refused(archive, f"it would extract to {needed} bytes, {needed / max(size, 1):.0f} times its size")
    return extracted


def safe_name(name: str) -> bool:
    """Whether a relative name means the same harmless file on every system."""
    parts = name.split("/")
    return (
        len(name) <= 400
        and len(parts) <= 8
        and all(_NAME_PART.fullmatch(part) and not part.endswith(".") for part in parts)
        and not any(_RESERVED_ON_WINDOWS.fullmatch(part) for part in parts)
    )


def _stays_inside(name: str) -> bool:
    """Whether a relative name leads below its folder on every system; nothing of that name will be written."""
    return not _NEVER_IN_NAMES.search(name) and not {"", ".", ".."} & set(name.split("/"))


def _problem_of(entry: zipfile.ZipInfo, name: str, stays: bool, limits: Limits) -> str | None:
    """What is wrong with one entry of the directory; None if nothing. One that stays packed cannot be a bomb."""
    mode = entry.external_attr >> 16
    if entry.filename != entry.orig_filename:
        return "its name holds a NUL or a foreign separator"
    if stays and not _stays_inside(name):
        return "its name is absolute, leaves the folder, or holds control characters, \\ or :"
    if not (stays or safe_name(name)):
        return "its name is absolute, leaves the folder, or holds characters that are not letters, digits or _ . + -"
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "it is a link or a special file"
    if entry.flag_bits & 0x1:
        return "it is encrypted"
    if entry.compress_type not in _METHODS:
        return "its compression method is not allowed (stored or deflate)"
    if entry.file_size > limits.file_bytes:
        return f"it would extract to {entry.file_size} bytes, more than {limits.file_bytes}"
    if entry.is_dir():
        return None if entry.file_size == 0 else "it is a folder with content"
    if not stays and entry.file_size > limits.small_bytes and entry.file_size > limits.ratio * entry.compress_size:
        return f"it would extract to {entry.file_size / max(entry.compress_size, 1):.0f} times its size"
    return None


def _extract(archive: Path, packed: zipfile.ZipFile, entry: zipfile.ZipInfo, folder: Path) -> None:
    """Write one file, no more bytes than its directory entry promised."""
    target = folder / entry.filename
    target.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    try:
        source = packed.open(entry)
    except OSError as error:  # an offset before the start of the file
        raise _refused(archive, f"entry {entry.filename!r}: {error.strerror}") from error
    with source, target.open("xb") as stream:
        while chunk := source.read(_CHUNK_BYTES):
            written += len(chunk)
            if written > entry.file_size:
                raise _refused(archive, f"entry {entry.filename!r}: holds more than its directory entry says")
            stream.write(chunk)
        stream.flush()
        os.fsync(stream.fileno())
    if written != entry.file_size:
        raise _refused(archive, f"entry {entry.filename!r}: holds less than its directory entry says")


def _refused(archive: Path, problem: str) -> ModelError:
    return ModelError(f"{archive}: refused to open this archive: {problem}; get it again from a source you trust")
