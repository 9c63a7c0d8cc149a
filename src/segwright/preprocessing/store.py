"""The file of a preprocessed case: read a patch without reading the volume, open it in a tenth of a millisecond.

Layout: safetensors (8 bytes header length, JSON header, arrays one after the other, little endian), so that other tools
can read it. Tensors: ``image`` float32 (c, z, y, x), ``locations/{key}`` int32 (k, 3), ``label`` int8 or int16
(z, y, x).
What is no array stands as one JSON text under ``__metadata__``. Data begin at a multiple of 64 bytes, every array at a
multiple of its item size. Reading maps the file into memory; nothing in it is executed, and nothing is trusted before
the header's claims were checked against the size of the file.
"""

from __future__ import annotations

import hashlib
import json
import mmap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segwright.core.errors import MALFORMED, DamagedFileError, brief
from segwright.core.files import atomic_path, read_json
from segwright.core.labels import LabelKey, key_from_text, key_text
from segwright.core.recorded import RecordedFile
from segwright.preprocessing.case import CaseProperties, PreprocessedCase

FORMAT_VERSION = 1
ENDING = ".safetensors"
REMEDY = "delete it and run the preprocessing again"

_ALIGNMENT_BYTES = 64
_MAX_HEADER_BYTES = 16 << 20
_DTYPES: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "I8": np.dtype("i1"),
    "I16": np.dtype("<i2"),
    "I32": np.dtype("<i4"),
}
_CODES = {dtype: code for code, dtype in _DTYPES.items()}
_LOCATIONS = "locations/"


def write_stored_case(path: Path | str, case: PreprocessedCase) -> str:
    """Write a case atomically; equal cases give equal bytes.

    Returns:
        SHA-256 of the file, 64 hexadecimal digits.
    """
    arrays = _arrays_of(case)
    tensors: dict[str, Any] = {"__metadata__": {"segwright": _metadata_text(case)}}
    offset = 0
    for name, array in arrays:
        end = offset + array.nbytes
        tensors[name] = {
            "dtype": _CODES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    header = json.dumps(tensors, separators=(",", ":")).encode("ascii")
    header += b" " * (-(8 + len(header)) % _ALIGNMENT_BYTES)
    digest = hashlib.sha256()
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        parts: list[Any] = [len(header).to_bytes(8, "little"), header, *(array.reshape(-1) for _, array in arrays)]
        for part in parts:
            digest.update(part)
            stream.write(part)
    return digest.hexdigest()


class StoredCase:
    """A case on disk, opened for reading. Arrays are read-only views of the mapped file: slicing reads only the slice.

    Attributes:
        image_czyx: float32.
        label_zyx: int8 or int16, -1 outside the non-zero mask; None if the case was stored without label map.
        class_locations: per key int32 (k, 3); None if the case was stored without label map.
        properties, present_channels, annotated_labels: see :class:`PreprocessedCase`.

    Raises:
        DamagedFileError: the file is missing, truncated, altered in its structure, or of another format version.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        arrays, metadata = _map_file(self.path)
        try:
            record = json.loads(metadata["segwright"])
            if record["version"] != FORMAT_VERSION:
                raise DamagedFileError(path, f"format version {record['version']}, expected {FORMAT_VERSION}", REMEDY)
            self.properties = CaseProperties.from_json(record["properties"])
            self.present_channels = tuple(bool(present) for present in record["present_channels"])
            self.annotated_labels = tuple(int(label) for label in record["annotated_labels"])
            self.image_czyx: NDArray[np.float32] = arrays.pop("image")
            self.label_zyx: NDArray[Any] | None = arrays.pop("label", None)
            self.class_locations = _locations(arrays, record["keys"])
        except MALFORMED as error:
            raise DamagedFileError(path, f"not a preprocessed case ({brief(repr(error))})", REMEDY) from error
        self._check_shapes()

    def _check_shapes(self) -> None:
        shape = self.properties.shape
        fits = self.image_czyx.dtype == np.float32 and self.image_czyx.shape == (len(self.present_channels), *shape)
        if self.label_zyx is not None:
            fits = fits and self.label_zyx.dtype in (np.int8, np.int16) and self.label_zyx.shape == shape
        for located in (self.class_locations or {}).values():
            fits = fits and located.dtype == np.int32 and located.ndim == 2 and located.shape[1] == 3
        if not fits:
            raise DamagedFileError(self.path, "its arrays do not fit each other", REMEDY)


class PreprocessedStore:
    """All preprocessed cases of one data_id: ``index.json``, one JSON a batch, and the folder of the cases.

    Args:
        location: the index file, or the folder it lies in.

    Raises:
        DamagedFileError: the index or a batch file is missing, damaged, or they do not belong together.
    """

    def __init__(self, location: Path | str) -> None:
        location = Path(location)
        self.index_file = location / "index.json" if location.is_dir() else location
        self.folder = self.index_file.parent
        index = read_json(self.index_file)
        files: dict[str, RecordedFile] = {}
        try:
            self.data_id = str(index["data_id"])
            for batch, digest in index["batches"].items():
                batch_file = self.folder / f"{_plain_name(batch)}.json"
                remedy = f"delete {batch_file} and {self.index_file}, then run again: only what is damaged is made anew"
                for case_id, entry in _batch_entries(batch_file, self.data_id, digest, self.index_file).items():
                    path = self.folder / _relative(entry["file"])
                    files[case_id] = RecordedFile(path, str(entry["content"]), batch_file, remedy, case_id)
            self._files = dict(sorted(files.items()))
        except MALFORMED as error:
            raise DamagedFileError(
                self.index_file, f"not an index of preprocessed cases ({brief(repr(error))})", REMEDY
            ) from error

    @property
    def case_ids(self) -> tuple[str, ...]:
        return tuple(self._files)

    def file(self, case_id: str) -> RecordedFile:
        """A case's file, with its SHA-256 as recorded when it was written.

        Raises:
            DamagedFileError: the index does not have the case.
        """
        if case_id not in self._files:
            raise DamagedFileError(self.index_file, f"case {case_id} is not in it", "run the preprocessing again")
        return self._files[case_id]

    def open(self, case_id: str) -> StoredCase:
        """Map a case's file; its content is not compared with the recorded digest, see :meth:`open_intact`.

        Raises:
            DamagedFileError: the index does not have the case, or its file is no stored case.
        """
        return StoredCase(self.file(case_id).path)

    def open_intact(self, case_id: str) -> StoredCase:
        """:meth:`open` after its content was compared with the recorded digest: for those who read all of it anyway."""
        return StoredCase(self.file(case_id).verify())


def _arrays_of(case: PreprocessedCase) -> list[tuple[str, NDArray[Any]]]:
    """Name and array, in the order of the file: largest items first, so that all are aligned without gaps."""
    arrays = [("image", np.ascontiguousarray(case.image_czyx, "<f4"))]
    for key, located in (case.class_locations or {}).items():
        arrays.append((_LOCATIONS + key_text(key), np.ascontiguousarray(located, "<i4")))
    if case.label_zyx is not None:
        arrays.append(("label", np.ascontiguousarray(case.label_zyx)))
    return arrays


def _metadata_text(case: PreprocessedCase) -> str:
    keys = None if case.class_locations is None else [key_text(key) for key in case.class_locations]
    record = {
        "version": FORMAT_VERSION,
        "properties": case.properties.to_json(),
        "present_channels": list(case.present_channels),
        "annotated_labels": list(case.annotated_labels),
        "keys": keys,
    }
    return json.dumps(record, sort_keys=True, separators=(",", ":"))


def _map_file(path: Path) -> tuple[dict[str, NDArray[Any]], Mapping[str, str]]:
    """The file's arrays, as read-only views of the mapped file, and its metadata."""
    try:
        with path.open("rb") as stream:
            mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError:
        raise DamagedFileError(path, "the file does not exist", "run the preprocessing again") from None
    except ValueError:
        raise DamagedFileError(path, "the file is empty", REMEDY) from None
    header_bytes = int.from_bytes(mapped[:8], "little")
    data_start = 8 + header_bytes
    if len(mapped) < 8 or header_bytes > _MAX_HEADER_BYTES or data_start > len(mapped):
        raise DamagedFileError(path, "the header is longer than the file", REMEDY)
    try:
        tensors = json.loads(mapped[8:data_start])
        metadata = tensors.pop("__metadata__")
        arrays, expected = {}, 0
        for name, entry in tensors.items():
            dtype, shape = _DTYPES[entry["dtype"]], entry["shape"]
            begin, end = entry["data_offsets"]
            _check_tensor(dtype, shape, begin, end, expected, len(mapped) - data_start)
            if (data_start + begin) % dtype.itemsize:
                raise ValueError(f"offset {data_start + begin} is not aligned")
            flat = np.frombuffer(mapped, dtype, (end - begin) // dtype.itemsize, data_start + begin)
            arrays[name], expected = flat.reshape(shape), end
    except MALFORMED as error:
        raise DamagedFileError(path, f"the header is not valid ({brief(repr(error))})", REMEDY) from error
    if data_start + expected != len(mapped):
        raise DamagedFileError(path, f"{data_start + expected} bytes expected but it has {len(mapped)}", REMEDY)
    return arrays, metadata


def _check_tensor(dtype: np.dtype[Any], shape: Any, begin: Any, end: Any, expected: int, available: int) -> None:
    """Refuse anything but one array right behind the other, within the file. Raises ValueError."""
    if not isinstance(shape, list) or any(type(edge) is not int or edge < 0 for edge in shape):
        raise ValueError(f"shape {shape}")
    size_bytes = dtype.itemsize
    for edge in shape:
        size_bytes *= edge
    if type(begin) is not int or type(end) is not int or begin != expected or end - begin != size_bytes:
        raise ValueError(f"offsets {begin} to {end} do not fit shape {shape}")
    if end > available:
        raise ValueError(f"data end at byte {end} but only {available} are there")


def _locations(arrays: dict[str, NDArray[Any]], keys: Sequence[str] | None) -> dict[LabelKey, NDArray[np.int32]] | None:
    """The location arrays in the order of ``keys``; nothing else may be left in ``arrays``."""
    located = None if keys is None else {key_from_text(text): arrays.pop(_LOCATIONS + text) for text in keys}
    if arrays:
        raise ValueError(f"unknown arrays {sorted(arrays)}")
    return located


def _batch_entries(path: Path, data_id: str, digest: str, index_file: Path) -> dict[str, dict[str, str]]:
    content = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(content).hexdigest() != digest:
        raise DamagedFileError(
            path, "is not the one the index was made for", f"delete it and {index_file}, then run again"
        )
    batch = json.loads(content)
    if batch["data_id"] != data_id:
        raise DamagedFileError(path, f"belongs to {batch['data_id']}, not to {data_id}", "run the preprocessing again")
    entries: dict[str, dict[str, str]] = batch["cases"]
    return entries


def _relative(file: str) -> Path:
    """A path below the store's folder; nothing in a file may lead out of it."""
    parts = file.split("/")
    for part in parts:
        _plain_name(part)
    return Path(*parts)


def _plain_name(name: str) -> str:
    if not name or name in (".", "..") or "/" in name or "\\" in name or "\0" in name:
        raise ValueError(f"{name!r} is not a file name")
    return name
