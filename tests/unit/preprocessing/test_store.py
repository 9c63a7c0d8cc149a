"""The stored case: exact round trip, partial reads, readable by safetensors, and refusal of damaged files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from segwright.core.errors import DamagedFileError
from segwright.core.files import file_digest
from segwright.core.geometry import Geometry
from segwright.preprocessing.case import CaseProperties, PreprocessedCase
from segwright.preprocessing.store import StoredCase, write_stored_case

SHAPE = (5, 7, 9)


def make_case(label_dtype: type | None = np.int8, channels: int = 2) -> PreprocessedCase:
    generator = np.random.default_rng(0)
    geometry = Geometry((6, 8, 10), (1.5, 1.0, 0.1), (1.0, -2.5, 3.0), (1.0, 0, 0, 0, 1, 0, 0, 0, 1))
    properties = CaseProperties(
        geometry, (6, 8, 10), ((0, 6), (1, 8), (0, 10)), (6, 7, 10), SHAPE, (1.5, 1.0, 0.1), (1.0, 1.0, 1.0)
    )
    labelled = label_dtype is not None
    return PreprocessedCase(
        image_czyx=generator.normal(size=(channels, *SHAPE)).astype(np.float32),
        label_zyx=generator.integers(-1, 3, SHAPE).astype(label_dtype) if labelled else None,
        properties=properties,
        class_locations={
            (1, 2): np.array([[0, 1, 2], [4, 6, 8]], np.int32),
            2: np.zeros((0, 3), np.int32),
            (-1, 0, 1, 2): np.array([[1, 1, 1]], np.int32),
        }
        if labelled
        else None,
        present_channels=(True, False)[:channels],
        annotated_labels=(0, 1, 2) if labelled else (),
    )


@pytest.mark.parametrize("label_dtype", [np.int8, np.int16, None])
def test_round_trip(tmp_path: Path, label_dtype: type | None) -> None:
    case = make_case(label_dtype)
    path = tmp_path / "cases" / "a.safetensors"
    digest = write_stored_case(path, case)
    stored = StoredCase(path)
    assert digest == file_digest(path)
    assert np.array_equal(stored.image_czyx, case.image_czyx)
    assert stored.properties == case.properties
    assert stored.present_channels == case.present_channels
    assert stored.annotated_labels == case.annotated_labels
    if case.label_zyx is None or case.class_locations is None:
        assert stored.label_zyx is None
        assert stored.class_locations is None
        return
    assert stored.label_zyx is not None
    assert stored.class_locations is not None
    assert stored.label_zyx.dtype == label_dtype
    assert np.array_equal(stored.label_zyx, case.label_zyx)
    assert list(stored.class_locations) == list(case.class_locations), "keys in order"
    for key, located in case.class_locations.items():
        assert np.array_equal(stored.class_locations[key], located)


def test_equal_cases_give_equal_bytes(tmp_path: Path) -> None:
    assert write_stored_case(tmp_path / "a", make_case()) == write_stored_case(tmp_path / "b", make_case())


def test_other_tools_can_read_it(tmp_path: Path) -> None:
    case = make_case()
    write_stored_case(tmp_path / "a.safetensors", case)
    tensors = load_file(tmp_path / "a.safetensors")
    assert np.array_equal(tensors["image"], case.image_czyx)
    assert np.array_equal(tensors["label"], case.label_zyx)
    assert np.array_equal(tensors["locations/(1, 2)"], [[0, 1, 2], [4, 6, 8]])


def test_arrays_are_read_only_views_of_an_aligned_file(tmp_path: Path) -> None:
    write_stored_case(tmp_path / "a", make_case())
    stored = StoredCase(tmp_path / "a")
    with pytest.raises(ValueError, match="read-only"):
        stored.image_czyx[0, 0, 0, 0] = 1
    patch = stored.image_czyx[:, 1:3, 2:5, 3:]
    assert not patch.flags.owndata
    assert (8 + int.from_bytes((tmp_path / "a").read_bytes()[:8], "little")) % 64 == 0


def test_a_patch_is_read_without_the_volume(tmp_path: Path) -> None:
    """A sparse file of 64 GB: more than could be read in a test, or held in memory."""
    path = tmp_path / "huge"
    write_stored_case(path, make_case(None))
    shape = [2, 2000, 2000, 2000]
    header, _ = header_of(path.read_bytes())
    header["image"] = {"dtype": "F32", "shape": shape, "data_offsets": [0, 4 * 2 * 2000**3]}
    record = json.loads(header["__metadata__"]["segwright"])
    record["properties"]["shape"] = shape[1:]
    header["__metadata__"]["segwright"] = json.dumps(record)
    content = with_header(header, b"")
    path.write_bytes(content)
    with path.open("r+b") as stream:
        stream.truncate(len(content) + 4 * 2 * 2000**3)
        stream.seek(len(content) + 4 * (1000 * 2000 * 2000 + 7 * 2000 + 5))
        stream.write(np.float32(3.5).tobytes())
    patch = StoredCase(path).image_czyx[:, 1000:1002, 6:9, 4:7]
    assert patch.shape == (2, 2, 3, 3)
    assert patch[0, 0, 1, 1] == 3.5
    assert patch.sum() == 3.5


def header_of(content: bytes) -> tuple[dict, bytes]:
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def with_header(header: object, data: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data


def misaligned(content: bytes) -> bytes:
    start = 8 + int.from_bytes(content[:8], "little")
    return (start - 7).to_bytes(8, "little") + content[8:start] + b" " + content[start:]


def edited(content: bytes, edit: Callable[[dict], object]) -> bytes:
    header, data = header_of(content)
    edit(header)
    return with_header(header, data)


def change_metadata(header: dict, name: str, value: object) -> None:
    record = json.loads(header["__metadata__"]["segwright"])
    record[name] = value
    header["__metadata__"]["segwright"] = json.dumps(record)


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "three bytes": lambda content: content[:3],
    "truncated": lambda content: content[:-1],
    "longer": lambda content: content + b"\0",
    "header length beyond the file": lambda content: (1 << 40).to_bytes(8, "little") + content[8:],
    "header length negative": lambda content: b"\xff" * 8 + content[8:],
    "misaligned": lambda content: misaligned(content),
    "not JSON": lambda content: with_header(b"{]", header_of(content)[1]),
    "a list": lambda content: with_header([1, 2], header_of(content)[1]),
    "deeply nested": lambda content: with_header(b"[" * 100_000, b""),
    "not UTF-8": lambda content: with_header(b'{"\xff": 1}', b""),
    "no metadata": lambda content: edited(content, lambda header: header.pop("__metadata__")),
    "no image": lambda content: edited(content, lambda header: header.pop("image")),
    "unknown dtype": lambda content: edited(content, lambda header: header["image"].update(dtype="F64")),
    "dtype of another size": lambda content: edited(content, lambda header: header["image"].update(dtype="I8")),
    "integers as image": lambda content: edited(content, lambda header: header["image"].update(dtype="I32")),
    "huge shape": lambda content: edited(content, lambda header: header["image"].update(shape=[2**40, 2**40, 1, 1])),
    "negative shape": lambda content: edited(content, lambda header: header["image"].update(shape=[-2, -5, 7, 9])),
    "fractional shape": lambda content: edited(content, lambda header: header["image"].update(shape=[2.0, 5, 7, 9])),
    "swapped shape": lambda content: edited(content, lambda header: header["image"].update(shape=[2, 7, 5, 9])),
    "offsets outside": lambda content: edited(
        content, lambda header: header["label"].update(data_offsets=[2**50, 2**50 + 315])
    ),
    "overlapping": lambda content: edited(content, lambda header: header["label"].update(data_offsets=[0, 315])),
    "offsets as text": lambda content: edited(content, lambda header: header["label"].update(data_offsets="ab")),
    "unknown array": lambda content: edited(
        content, lambda header: header.update(more={"dtype": "I8", "shape": [0], "data_offsets": [0, 0]})
    ),
    "other version": lambda content: edited(content, lambda header: change_metadata(header, "version", 99)),
    "metadata not JSON": lambda content: edited(content, lambda header: header["__metadata__"].update(segwright="{")),
    "properties missing": lambda content: edited(content, lambda header: change_metadata(header, "properties", {})),
    "properties a number": lambda content: edited(content, lambda header: change_metadata(header, "properties", 3)),
    "keys odd": lambda content: edited(content, lambda header: change_metadata(header, "keys", ["", "x"])),
    "keys missing": lambda content: edited(content, lambda header: change_metadata(header, "keys", None)),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files_are_refused_by_name(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "a.safetensors"
    write_stored_case(path, make_case())
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    with pytest.raises(DamagedFileError, match=r"a\.safetensors.*again"):
        StoredCase(path)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DamagedFileError, match=r"absent.*does not exist"):
        StoredCase(tmp_path / "absent")


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 900), st.binary(min_size=1, max_size=6))
def test_random_damage_of_the_header_never_escapes(tmp_path: Path, position: int, garbage: bytes) -> None:
    path = tmp_path / "a.safetensors"
    write_stored_case(path, make_case())
    content = bytearray(path.read_bytes())
    content[position : position + len(garbage)] = garbage
    path.write_bytes(content)
    try:
        stored = StoredCase(path)
    except DamagedFileError:
        return
    assert stored.image_czyx.shape == (2, *SHAPE)
