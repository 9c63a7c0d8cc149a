"""Atomic writes, JSON and digests: the only way results get onto disk.

A file is written under a temporary name in its own folder, flushed to disk and renamed, so that a reader
sees the old file or the new one, never half of one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from segwright.core.errors import DamagedFileError

_CHUNK_BYTES = 1 << 20
TEMPORARY_PREFIX = ".part-"


@contextlib.contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path in the folder of ``path``; on success flush it and rename it to ``path``.

    The temporary name keeps the file ending, because image writers choose the format by it. If the body
    raises, the temporary file is removed and ``path`` stays as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex[:12]}-{path.name}")
    try:
        yield temporary
        _flush_to_disk(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    _flush_to_disk(path.parent)


def write_bytes(path: Path | str, content: bytes) -> None:
    """Write ``content`` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path | str, content: str) -> None:
    """Write UTF-8 text atomically."""
    write_bytes(path, content.encode("utf-8"))


def write_json(path: Path | str, value: Any, *, sort_keys: bool = True) -> None:
    """Write JSON atomically: indented, keys sorted (unless a schema fixes their order), one newline at the end."""
    write_text(path, json_text(value, sort_keys=sort_keys))


def json_text(value: Any, *, sort_keys: bool = True) -> str:
    """The project's one JSON form. Equal values give equal text, which is what content comparison rests on."""
    return json.dumps(value, indent=2, sort_keys=sort_keys, ensure_ascii=False, default=_plain) + "\n"


def read_json(path: Path | str) -> Any:
    """Read a JSON file.

    Raises:
        DamagedFileError: it is missing, cannot be read, or is not JSON.
    """
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DamagedFileError(path, "the file does not exist", "make it, or correct the path") from None
    except OSError as error:
        raise DamagedFileError(path, f"cannot be read ({error.strerror})", "correct the path or its rights") from error
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        remedy = "correct it, or delete it and run again if segwright made it"
        raise DamagedFileError(path, f"not valid JSON ({error})", remedy) from error


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


def remove_temporary_files(folder: Path | str) -> None:
    """Remove what killed writers left in ``folder`` (not in its subfolders)."""
    for leftover in Path(folder).glob(f"{TEMPORARY_PREFIX}*"):
        leftover.unlink(missing_ok=True)


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
