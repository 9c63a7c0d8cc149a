"""Side files of inspection: a case's record and value counts, ``values/{case}.{digest}.npz`` (design, decision 3).

Snakemake deletes a job's declared outputs before it starts, so what has been found out about unchanged files is kept
here. The name carries a digest of all that the record depends on: the file exists, so it is right.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segwright.core.files import bytes_digest, intended_name, write_bytes
from segwright.core.recorded import RecordedFile
from segwright.inspection.intensities import ValueCounts
from segwright.inspection.records import CaseRecord

_FOLDER = "values"
_NAME = re.compile(r"(?P<case>[^.].*)\.[0-9a-f]{12}\.npz$", re.DOTALL)


def save_record(store: Path, record: CaseRecord, key: str, counts: Sequence[ValueCounts]) -> CaseRecord:
    """Write the side file of a sound case; returns the record that names it.

    Arrays: ``record`` (JSON bytes), and per channel c ``values_c`` float32 and ``counts_c`` uint32 or uint64.
    """
    arrays: dict[str, NDArray[Any]] = {
        "record": np.frombuffer(json.dumps(record.to_json(), sort_keys=True).encode("utf-8"), np.uint8)
    }
    for channel, count in enumerate(counts):
        small = not count.counts.size or int(count.counts.max()) < 2**32
        arrays[f"values_{channel}"] = count.values
        arrays[f"counts_{channel}"] = count.counts.astype(np.uint32 if small else np.uint64)
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    content = buffer.getvalue()
    path = _path(store, record.case_id, key)
    write_bytes(path, content)
    return _with_values(record, path, content)


def load_record(store: Path, case_id: str, key: str) -> CaseRecord | None:
    """The record kept under ``key``; None if there is none, or it is damaged (it is then made again)."""
    path = _path(store, case_id, key)
    try:
        content = path.read_bytes()
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            record = CaseRecord.from_json(case_id, json.loads(arrays["record"].tobytes()))
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        return None
    return _with_values(record, path, content)


def require_intact_counts(store: Path, record: CaseRecord) -> None:
    """Compare a training case's side file with its recorded digest: once, before :func:`load_counts` for each channel.

    Raises:
        DamagedFileError: the side file is missing or is not the one the record was made with.
    """
    _values_file(store, record).verify()


def load_counts(store: Path, record: CaseRecord, channel: int) -> ValueCounts:
    """Value counts of one channel of a training case; no more than these is read of its side file."""
    assert record.fingerprint is not None
    with np.load(_values_file(store, record).path, allow_pickle=False) as arrays:
        counts = arrays[f"counts_{channel}"].astype(np.int64)
        return ValueCounts(arrays[f"values_{channel}"], counts, record.fingerprint.intensities[channel])


def remove_stale(store: Path, known: Collection[str], current: Mapping[str, CaseRecord]) -> None:
    """Delete side files of cases the dataset no longer has, and of the cases just inspected those that are out of date
    or were left half-written by killed jobs. Those of other batches' cases are left alone.
    """
    for path in (store / _FOLDER).glob("*.npz"):
        match = _NAME.fullmatch(intended_name(path))
        if match is None:
            continue
        record = current.get(match["case"])
        wanted = None if record is None or record.values_file is None else record.values_file[0]
        unfinished = match.string != path.name  # perhaps by a job that is at it now, if it is not a case of this one
        if (record is not None and wanted != path.name) or (match["case"] not in known and not unfinished):
            path.unlink(missing_ok=True)


def _path(store: Path, case_id: str, key: str) -> Path:
    return store / _FOLDER / f"{case_id}.{key[:12]}.npz"


def _values_file(store: Path, record: CaseRecord) -> RecordedFile:
    """The side file of a training case."""
    assert record.values_file is not None  # every case without errors has one
    name, digest = record.values_file
    remedy = f"delete the folder {store} and run again"  # batch files that are there are not made again
    return RecordedFile(store / _FOLDER / name, digest, store, remedy, record.case_id)


def _with_values(record: CaseRecord, path: Path, content: bytes) -> CaseRecord:
    return replace(record, values_file=(path.name, bytes_digest(content)))
