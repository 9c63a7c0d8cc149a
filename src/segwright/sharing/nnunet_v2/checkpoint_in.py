"""Checkpoints of nnU-Net v2, read without executing anything (method 9.4).

A checkpoint is a zip archive: ``data.pkl`` describes the objects, and each array lies uncompressed in a record of its
own. The pickle goes through :mod:`restricted_pickle`; of the records only those of the network weights are ever read,
so the optimizer's state (as large as the weights) stays on the disk.
"""

from __future__ import annotations

import math
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from segwright.core.errors import ModelError
from segwright.sharing.nnunet_v2.restricted_pickle import LIMIT_BYTES, Name, Vocabulary, read_pickle

if TYPE_CHECKING:
    from torch import Tensor

_KEYS = ("network_weights", "trainer_name", "init_args")
_STORAGES = {
    "DoubleStorage": ("float64", 8),
    "FloatStorage": ("float32", 4),
    "HalfStorage": ("float16", 2),
    "BFloat16Storage": ("bfloat16", 2),
    "LongStorage": ("int64", 8),
    "IntStorage": ("int32", 4),
    "ShortStorage": ("int16", 2),
    "CharStorage": ("int8", 1),
    "ByteStorage": ("uint8", 1),
    "BoolStorage": ("bool", 1),
}
"""Class that a checkpoint names -> torch dtype and bytes of an element."""
_RECORD = re.compile(r"[0-9]{1,9}")
_NAME = re.compile(r"[\w.+ -]{1,200}")
"""Names of trainers, configurations and weights, which messages and the model card repeat."""
_EPOCHS_MAX = 1 << 31
_OLD_FORMAT = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # a pickled number all files of torch before 1.6 begin with
_DIMENSIONS_MAX = 8


@dataclass(frozen=True)
class Storage:
    """A record of the archive, as the pickle describes it."""

    dtype: str
    record: str
    elements: int


@dataclass(frozen=True)
class StoredTensor:
    """A view of a storage; its values are read by :meth:`Checkpoint.load_weights`."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(frozen=True)
class Checkpoint:
    """What an nnU-Net v2 checkpoint says of a trained network.

    Attributes:
        mirror_axes: spatial axes of the patch that may be flipped in prediction (none: no flipping).
        epochs: number of finished epochs, if it says so.
        ema_fg_dice: nnU-Net's moving average of the online Dice after the last epoch, if it says so.
    """

    path: Path
    trainer: str
    configuration: str
    mirror_axes: tuple[int, ...]
    epochs: int | None
    ema_fg_dice: float | None
    tensors: Mapping[str, StoredTensor]

    def load_weights(self) -> dict[str, Tensor]:
        """The weights under the names of the file; names of one tensor share their memory.

        Raises:
            ModelError: the archive is damaged.
        """
        import torch

        loaded: dict[Storage, Tensor] = {}
        with _opened(self.path) as archive:
            for tensor in self.tensors.values():
                if tensor.storage not in loaded:
                    dtype = getattr(torch, tensor.storage.dtype)
                    size_bytes = tensor.storage.elements * dtype.itemsize
                    raw = bytearray(_record(self.path, archive, tensor.storage.record)[:size_bytes])
                    loaded[tensor.storage] = torch.frombuffer(raw, dtype=dtype) if raw else torch.empty(0, dtype=dtype)
        return {
            name: torch.as_strided(loaded[tensor.storage], tensor.size, tensor.stride, tensor.offset)
            for name, tensor in self.tensors.items()
        }


def read_checkpoint(path: Path) -> Checkpoint:
    """Read what a ``checkpoint_*.pth`` describes; its weights follow with :meth:`Checkpoint.load_weights`.

    Raises:
        ModelError: it is no checkpoint of nnU-Net v2, is damaged, or names something that could run code.
    """
    with _opened(path) as archive:
        sizes = _checked_records(path, archive)
        (pickled,) = (name for name in sizes if name.endswith("/data.pkl"))
        root = pickled.removesuffix("data.pkl")
        if f"{root}byteorder" in sizes and _record(path, archive, f"{root}byteorder").strip() != b"little":
            raise ModelError(f"{path}: was written on a machine of another byte order; save it again on a common one")
        content = read_pickle(_record(path, archive, pickled), _vocabulary(root, sizes), str(path))
    missing = [key for key in _KEYS if not isinstance(content, dict) or key not in content]
    if missing:
        raise ModelError(
            f"{path}: is not a checkpoint of nnU-Net v2, it lacks {', '.join(missing)}; models of nnU-Net v1 and of"
            " other programs cannot be imported"
        )
    return _checkpoint(path, content)


def _checkpoint(path: Path, content: Mapping[str, Any]) -> Checkpoint:
    arguments, weights = content["init_args"], content["network_weights"]
    configuration = arguments.get("configuration") if isinstance(arguments, dict) else None
    trainer, axes = content["trainer_name"], content.get("inference_allowed_mirroring_axes")
    axes = () if axes is None else axes
    valid = (
        _is_name(configuration)
        and _is_name(trainer)
        and isinstance(weights, dict)
        and all(_is_name(name) and isinstance(tensor, StoredTensor) for name, tensor in weights.items())
        and isinstance(axes, (tuple, list))
        and all(isinstance(axis, int) and 0 <= axis <= 2 for axis in axes)
    )
    if not valid:
        raise ModelError(
            f"{path}: trainer_name, init_args.configuration, network_weights or inference_allowed_mirroring_axes is not"
            " what nnU-Net v2 writes there; get the checkpoint again"
        )
    epochs = content.get("current_epoch")
    return Checkpoint(
        path=path,
        trainer=str(trainer),
        configuration=str(configuration),
        mirror_axes=tuple(sorted({int(axis) for axis in axes})),
        epochs=epochs if isinstance(epochs, int) and 0 <= epochs < _EPOCHS_MAX else None,
        ema_fg_dice=_last_score(content.get("logging"), "ema_fg_dice"),
        tensors=dict(weights),
    )


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def _last_score(logged: Any, name: str) -> float | None:
    """Last entry, 0 to 1, of one curve of the log, which recent releases keep one level deeper."""
    for record in (logged, *(logged.values() if isinstance(logged, dict) else ())):
        curve = record.get(name) if isinstance(record, dict) else None
        last = curve[-1] if isinstance(curve, list) and curve else None
        if isinstance(last, (int, float, np.floating)) and 0 <= last <= 1:
            return float(last)
    return None


# --- the archive ------------------------------------------------------------------------------------------------------


def _opened(path: Path) -> zipfile.ZipFile:
    if not path.is_file():
        raise ModelError(f"{path}: the checkpoint is missing; correct the path")
    with path.open("rb") as stream:
        start = stream.read(len(_OLD_FORMAT))
    if start == _OLD_FORMAT:
        raise ModelError(
            f"{path}: is in the format of torch before 1.6, which nnU-Net v2 never wrote; load it with the program it"
            " comes from and save it again"
        )
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as problem:
        raise ModelError(f"{path}: not a readable checkpoint ({problem}); get the file again") from problem


def _checked_records(path: Path, archive: zipfile.ZipFile) -> dict[str, int]:
    """Size of each record; torch stores them uncompressed, so together they are never larger than the file."""
    sizes: dict[str, int] = {}
    for entry in archive.infolist():
        if entry.filename in sizes:
            raise _refused(path, f"it has two records {entry.filename[:80]!r}")
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 0x1 or entry.file_size != entry.compress_size:
            raise _refused(path, f"its record {entry.filename[:80]!r} is compressed or encrypted")
        sizes[entry.filename] = entry.file_size
    if sum(sizes.values()) > path.stat().st_size:
        raise _refused(path, "its records claim to be larger than the file")
    pickles = [name for name in sizes if name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise ModelError(
            f"{path}: is a zip archive but no checkpoint (it has {len(pickles)} data.pkl); correct the path"
        )
    if sizes[pickles[0]] > LIMIT_BYTES:
        raise _refused(path, f"its pickle has {sizes[pickles[0]]} bytes")
    return sizes


def _record(path: Path, archive: zipfile.ZipFile, name: str) -> bytes:
    try:
        return archive.read(name)
    except (zipfile.BadZipFile, OSError, EOFError, KeyError, ValueError, NotImplementedError, RuntimeError) as problem:
        raise ModelError(f"{path}: the record {name} cannot be read ({problem}); get the file again") from problem


# --- what its pickle may name -----------------------------------------------------------------------------------------


def _vocabulary(root: str, sizes: Mapping[str, int]) -> Vocabulary:
    described: dict[str, Storage] = {}

    def storage(identity: Any) -> Storage:
        kind, storage_class, key, _, elements = identity
        if kind != "storage" or not isinstance(key, str) or not _RECORD.fullmatch(key):
            raise ValueError("a tensor lies outside of the archive")
        dtype, size_bytes = _STORAGES[storage_class.text.removeprefix("torch.")]
        record = f"{root}data/{key}"
        if record not in sizes:
            raise ValueError(f"the record {record} is missing")
        if not _is_size(elements) or elements * size_bytes > sizes[record]:
            raise ValueError(f"a tensor needs more than the {sizes[record]} bytes of the record {record}")
        found = Storage(dtype, record, elements)
        if described.setdefault(record, found) != found:  # each would be read again, a large record a thousand times
            raise ValueError(f"the record {record} is described in two ways")
        return found

    return Vocabulary(
        calls={
            "torch._utils._rebuild_tensor_v2": _tensor,
            "torch._utils._rebuild_parameter": lambda tensor, *_: tensor,
            "torch.device": lambda *parts: Name("torch.device"),
            "torch.Size": lambda sizes=(): tuple(sizes),
        },
        names=frozenset(f"torch.{name}" for name in _STORAGES),
        persistent=storage,
    )


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> StoredTensor:
    """``torch._utils._rebuild_tensor_v2``: a view that lies inside its storage and is no larger than it."""
    if not isinstance(storage, Storage) or not isinstance(size, tuple) or not isinstance(stride, tuple):
        raise ValueError("a tensor without storage or shape")
    if len(size) != len(stride) or len(size) > _DIMENSIONS_MAX or not all(map(_is_size, (offset, *size, *stride))):
        raise ValueError("a tensor of an impossible shape")
    if math.prod(edge for edge in size if edge) >= 1 << 48:  # of a tensor without values, which torch cannot stride
        raise ValueError("a tensor of an impossible shape")
    count = math.prod(size)
    last = offset + sum((edge - 1) * step for edge, step in zip(size, stride, strict=True))
    if count > storage.elements or (count and last >= storage.elements):
        raise ValueError(f"a tensor of {count} values in a storage of {storage.elements}")
    return StoredTensor(storage, offset, size, stride)


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 48


def _refused(path: Path, problem: str) -> ModelError:
    return ModelError(f"{path}: refused to open this checkpoint: {problem}; get it from a source you trust")
