"""Checkpoints: read as torch reads them, without the optimizer's arrays; damaged and malicious ones are refused."""

from __future__ import annotations

import io
import os
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from segwright.core.errors import ModelError
from segwright.sharing.nnunet_v2 import checkpoint_in
from segwright.sharing.nnunet_v2.checkpoint_in import read_checkpoint
from tests.unit.sharing.nnunet_v2 import made


def saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def test_what_torch_saved_is_read(tmp_path: Path) -> None:
    content = made.checkpoint("3d_fullres")
    checkpoint = read_checkpoint(saved(tmp_path / "c.pth", content))
    assert (checkpoint.trainer, checkpoint.configuration, checkpoint.mirror_axes) == (
        "nnUNetTrainer", "3d_fullres", (0, 1, 2),
    )  # fmt: skip
    assert (checkpoint.epochs, checkpoint.ema_fg_dice) == (2, 0.5)
    weights = checkpoint.load_weights()
    assert list(weights) == list(content["network_weights"])
    assert all(torch.equal(weights[name], tensor) for name, tensor in content["network_weights"].items())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool])
def test_types_views_and_empty_tensors(dtype: torch.dtype, tmp_path: Path) -> None:
    base = torch.arange(24).reshape(4, 6).to(dtype)
    tensors = {
        "whole": base, "transposed": base.T, "part": base[1:3, ::2], "number": base[2, 3], "empty": base[:0],
        "parameter": torch.nn.Parameter(base) if dtype.is_floating_point else base,
    }  # fmt: skip
    weights = read_checkpoint(saved(tmp_path / "c.pth", made.checkpoint("2d", network_weights=tensors))).load_weights()
    for name, tensor in tensors.items():
        assert weights[name].dtype == dtype and torch.equal(weights[name], tensor.detach()), name
    assert weights["whole"].data_ptr() == weights["transposed"].data_ptr()


def test_the_optimizer_s_arrays_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = {"state": {0: {"momentum_buffer": torch.ones(1000)}}, "param_groups": []}
    path = saved(tmp_path / "c.pth", made.checkpoint("2d", optimizer_state=state))
    read: list[str] = []
    original = checkpoint_in._record
    monkeypatch.setattr(checkpoint_in, "_record", lambda *given: read.append(given[2]) or original(*given))
    checkpoint = read_checkpoint(path)
    checkpoint.load_weights()
    with zipfile.ZipFile(path) as archive:
        arrays = {name for name in archive.namelist() if re.search(r"/data/\d+$", name)}
        largest = max(arrays, key=lambda name: archive.getinfo(name).file_size)
    assert arrays - set(read) == {largest} and len(read) == len(set(read))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"trainer_name": 3}, "trainer_name"),
        ({"init_args": {}}, "init_args.configuration"),
        ({"init_args": None}, "init_args.configuration"),
        ({"trainer_name": "nnUNetTrainer\x1b[2J"}, "trainer_name"),
        ({"trainer_name": "\ud800"}, "trainer_name"),
        ({"trainer_name": "a" * 1000}, "trainer_name"),
        ({"trainer_name": "a/b"}, "trainer_name"),
        ({"init_args": {"configuration": "2d\n"}}, "init_args.configuration"),
        ({"network_weights": {"\x1b": torch.ones(1)}}, "network_weights"),
        ({"network_weights": {"a": 1}}, "network_weights"),
        ({"network_weights": {1: torch.ones(1)}}, "network_weights"),
        ({"inference_allowed_mirroring_axes": (0, 7)}, "mirroring_axes"),
        ({"inference_allowed_mirroring_axes": "012"}, "mirroring_axes"),
        ({"logging": torch.nn.ReLU()}, "names torch.nn.modules.activation.ReLU"),
        ({"logging": Path("x")}, r"names pathlib\w*\.\w*Path"),
        ({"logging": torch.ones(2).to_sparse()}, "names torch._utils._rebuild_sparse_tensor"),
    ],
)
def test_other_contents_are_refused(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=words):
        read_checkpoint(saved(tmp_path / "c.pth", made.checkpoint("2d", **changes)))


def test_impossible_numbers_are_left_out(tmp_path: Path) -> None:
    for epochs in (10**5000, -1, 2**31, 1.5):
        checkpoint = read_checkpoint(saved(tmp_path / "c.pth", made.checkpoint("2d", current_epoch=epochs)))
        assert checkpoint.epochs is None
    for score in (10**5000, -(10**5000), float("nan"), float("inf"), 1.5):
        logged = {"ema_fg_dice": [0.5, score]}
        checkpoint = read_checkpoint(saved(tmp_path / "c.pth", made.checkpoint("2d", logging=logged)))
        assert checkpoint.ema_fg_dice is None
    checkpoint = read_checkpoint(saved(tmp_path / "c.pth", made.checkpoint("2d", current_epoch=1000)))
    assert (checkpoint.epochs, checkpoint.ema_fg_dice) == (1000, 0.5)


@pytest.mark.parametrize("content", [[1, 2], {"state_dict": {}, "epoch": 3}, torch.ones(3)])
def test_other_files_of_torch_are_refused(content: Any, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not a checkpoint of nnU-Net v2, it lacks network_weights"):
        read_checkpoint(saved(tmp_path / "c.pth", content))


def test_files_that_are_no_archive(tmp_path: Path) -> None:
    path = tmp_path / "c.pth"
    with pytest.raises(ModelError, match="is missing"):
        read_checkpoint(path)
    torch.save(made.checkpoint("2d"), path, _use_new_zipfile_serialization=False)
    with pytest.raises(ModelError, match=r"torch before 1.6"):
        read_checkpoint(path)
    whole = saved(path, made.checkpoint("2d")).read_bytes()
    for part in (b"", b"garbage", whole[: len(whole) // 2], whole[:-30]):
        path.write_bytes(part)
        with pytest.raises(ModelError, match="not a readable checkpoint"):
            read_checkpoint(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "x")
    with pytest.raises(ModelError, match="no checkpoint"):
        read_checkpoint(path)


Records = dict[str, bytes]


def rewritten(path: Path, change: Callable[[Records], None], method: int = zipfile.ZIP_STORED) -> Path:
    """The checkpoint with other records."""
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    change(records)
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in records.items():
            archive.writestr(name, content)
    return path


def pickled(records: Records) -> str:
    return next(name for name in records if name.endswith("data.pkl"))


def replaced(old: bytes, new: bytes) -> Callable[[Records], None]:
    def change(records: Records) -> None:
        assert old in records[pickled(records)]
        records[pickled(records)] = records[pickled(records)].replace(old, new)

    return change


def one_record_shortened(records: Records) -> None:
    name = next(name for name in records if re.search(r"/data/\d+$", name))
    records[name] = records[name][:-1]


def record_removed(records: Records) -> None:
    del records[next(name for name in records if name.endswith("/data/0"))]


def other_byte_order(records: Records) -> None:
    records[next(name for name in records if name.endswith("byteorder"))] = b"big"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (one_record_shortened, "needs more than the"),
        (record_removed, "data/0 is missing"),
        (other_byte_order, "another byte order"),
        (replaced(b"X\x01\x00\x00\x000", b"X\x01\x00\x00\x00/"), "outside of the archive"),
        (replaced(b"FloatStorage", b"QInt8Storage"), "names torch.QInt8Storage"),
        (replaced(b"ctorch\nFloatStorage", b"cposix\nsystem"), "names posix.system"),
        (replaced(b"_rebuild_tensor_v2", b"_rebuild_meta_tensor_no_storage"), "_rebuild_meta_tensor_no_storage"),
    ],
)  # fmt: skip
def test_altered_archives_are_refused(change: Callable[[Records], None], words: str, tmp_path: Path) -> None:
    path = rewritten(saved(tmp_path / "c.pth", made.checkpoint("2d")), change)
    with pytest.raises(ModelError, match=words):
        read_checkpoint(path).load_weights()


def test_a_damaged_array_is_noticed(tmp_path: Path) -> None:
    path = saved(tmp_path / "c.pth", made.checkpoint("2d"))
    checkpoint = read_checkpoint(path)
    with zipfile.ZipFile(path) as archive:
        entry = archive.getinfo(next(iter(checkpoint.tensors.values())).storage.record)
    content = bytearray(path.read_bytes())
    start = content.find(b"\0", entry.header_offset + 30 + len(entry.filename)) // 64 * 64 + 64  # torch aligns arrays
    content[start] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"cannot be read .*CRC"):
        read_checkpoint(path).load_weights()


def test_compressed_and_doubled_records_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "c.pth", made.checkpoint("2d"))
    with pytest.raises(ModelError, match="compressed or encrypted"):
        read_checkpoint(rewritten(path, lambda records: None, zipfile.ZIP_DEFLATED))
    saved(path, made.checkpoint("2d"))
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr(archive.namelist()[0], b"another")
    with pytest.raises(ModelError, match="two records"):
        read_checkpoint(path)


def test_records_may_not_share_their_bytes(tmp_path: Path) -> None:
    """Many entries of the directory that point to one large record would ask for more memory than the file has."""
    path = tmp_path / "c.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("c/data.pkl", b"x" * 5000)
        first = archive.infolist()[0]
        for number in range(3):
            entry = zipfile.ZipInfo(f"c/data/{number}")
            for field in ("header_offset", "file_size", "compress_size", "CRC"):
                setattr(entry, field, getattr(first, field))
            archive.filelist.append(entry)
        archive._didModify = True  # type: ignore[attr-defined]
    with pytest.raises(ModelError, match="larger than the file"):
        read_checkpoint(path)


class Call:
    def __init__(self, name: Callable[..., Any], *arguments: Any) -> None:
        self.what = name, arguments

    def __reduce__(self) -> Any:
        return self.what


@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [
        (0, (1 << 40,), (0,)),  # 4 TiB seen through one number
        (0, (1 << 31, 1 << 31), (0, 0)),
        (0, (11,), (1,)),
        (5, (6,), (1,)),
        (-1, (2,), (1,)),
        (0, (2,), (-1,)),
        (0, (2, 2), (1,)),
        (0, (1,) * 9, (1,) * 9),
        (0, (2.0,), (1,)),
        (0, (True,), (1,)),
        (0, [2], (1,)),
        (0, (0, 1 << 47, 1 << 47), (1, 1, 1)),
    ],
)
def test_tensors_stay_inside_their_record(offset: Any, size: Any, stride: Any, tmp_path: Path) -> None:
    """A tensor of ten numbers whose shape was altered."""
    stream = io.BytesIO()

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: Any) -> Any:
            return ("storage", torch.FloatStorage, "0", "cpu", 10) if isinstance(value, torch.UntypedStorage) else None

    storage = torch.UntypedStorage(1)
    tensor = Call(torch._utils._rebuild_tensor_v2, storage, offset, size, stride, False, None)
    Pickler(stream, 2).dump(made.checkpoint("2d", network_weights={"w": tensor}, optimizer_state=None))
    path = tmp_path / "c.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("c/data.pkl", stream.getvalue())
        archive.writestr("c/data/0", bytes(40))
    with pytest.raises(ModelError, match=r"not a readable pickle .*(tensor|shape)"):
        read_checkpoint(path)


@pytest.mark.parametrize("other", [(torch.FloatStorage, 9), (torch.IntStorage, 10)])
def test_a_record_has_one_description(other: tuple[type, int], tmp_path: Path) -> None:
    """Or a thousand tensors, each with a number less of one large record, would be a thousand copies of it."""
    stream = io.BytesIO()
    kinds = iter([(torch.FloatStorage, 10), (torch.FloatStorage, 10), other])

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: Any) -> Any:
            if not isinstance(value, torch.UntypedStorage):
                return None
            kind, elements = next(kinds)
            return "storage", kind, "0", "cpu", elements

    weights = {
        name: Call(torch._utils._rebuild_tensor_v2, torch.UntypedStorage(1), 0, (2,), (1,), False, None)
        for name in "abc"
    }
    Pickler(stream, 2).dump(made.checkpoint("2d", network_weights=weights, optimizer_state=None))
    path = tmp_path / "c.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("c/data.pkl", stream.getvalue())
        archive.writestr("c/data/0", bytes(40))
    with pytest.raises(ModelError, match="the record c/data/0 is described in two ways"):
        read_checkpoint(path)


def test_a_call_in_any_place_is_refused(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    for place in ("network_weights", "optimizer_state", "logging", "init_args", "trainer_name"):
        content = made.checkpoint("2d", **{place: Call(os.system, f"touch {marker}")})
        with pytest.raises(ModelError, match=rf"names {os.name}\.system"):
            read_checkpoint(saved(tmp_path / "c.pth", content))
    assert not marker.exists()
