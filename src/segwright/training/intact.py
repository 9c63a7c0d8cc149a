"""Whether what a training reads is what was recorded when it was written, before anything is learnt from it.

Patches are read from mapped files later, where a flipped bit would go unnoticed. One pass over the data, at the speed
of the disk or of SHA-256 in a few threads (about 1 GB/s each), is little against a training, but not against each of
many short attempts: what one attempt found intact is noted, and the next ones read it again only if it changed.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from segwright.core.errors import DamagedFileError
from segwright.core.files import read_json, write_json
from segwright.core.progress import progress
from segwright.core.recorded import RecordedFile

INTACT_FILE = "intact.json"
_NOTE_EVERY_S = 30.0  # what kill -9, a preemption or a node failure may cost


def require_intact(
    files: Sequence[RecordedFile],
    threads: int,
    noted: Path | None = None,
    after_each: Callable[[], None] = lambda: None,
) -> None:
    """Read every file once and compare it with its recorded digest.

    Args:
        noted: JSON file of what was found intact before; it is brought up to date now and then, and at the end.
        after_each: called after each file that was read; may raise to end this early.

    Raises:
        DamagedFileError: names the first one that is missing or altered.
    """
    named = {str(file.path): file for file in files}
    known = {} if noted is None else _read_notes(noted)
    intact = {path: known[path] for path, file in named.items() if path in known and known[path] == _marks(file)}
    pending = {path: file for path, file in named.items() if path not in intact}
    noted_s = time.monotonic()
    with ThreadPoolExecutor(threads) as pool, progress("check the stored cases", len(pending)) as bar:
        results = {path: pool.submit(_verify, file) for path, file in pending.items()}
        try:
            for path, file in pending.items():
                intact[path] = results[path].result()
                bar.advance(file.case_id or path)
                if noted is not None and time.monotonic() - noted_s >= _NOTE_EVERY_S:
                    write_json(noted, intact, sealed=True)
                    noted_s = time.monotonic()
                after_each()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            if noted is not None and pending:
                write_json(noted, intact, sealed=True)


def _verify(file: RecordedFile) -> list[Any] | None:
    marks = _marks(file)  # before it is read: what changes meanwhile is read again next time
    file.verify()
    return marks


def _marks(file: RecordedFile) -> list[Any] | None:
    """Size, time of the last change and recorded digest: while these are equal, the file counts as unchanged."""
    with contextlib.suppress(OSError):  # it is missing: `verify` says so
        found = file.path.stat()
        return [found.st_size, found.st_mtime_ns, file.digest]
    return None


def _read_notes(path: Path) -> dict[str, Any]:
    with contextlib.suppress(DamagedFileError):  # lost notes only cost the time to read the files again
        notes = read_json(path)
        if isinstance(notes, dict):
            return notes
    return {}
