"""Archives with strange entries, with changed fields in their records, or with changed bytes."""

from __future__ import annotations

import io
import random
import stat
import zipfile
from collections.abc import Mapping

from tests.fuzz.mutations import mutated, number_bytes

_NAMES = (
    "../evil.json", "/etc/evil", "a/../../evil", "C:\\evil", "model.json", "MODEL.JSON", "x" * 300, "con", "a\\b",
    "\u00e9.json",
    "3d_fullres/", "3d_fullres/predict.json", "./model.json", "a//b", "nul.json",
    "3d_fullres/fold_0/model.safetensors ",
)  # fmt: skip


_MODES = (stat.S_IFLNK | 0o777, stat.S_IFIFO | 0o644, stat.S_IFREG | 0o4755, stat.S_IFCHR | 0o600, 0, 0xFFFF)


def mutated_zip(rng: random.Random, files: Mapping[str, bytes], *, stored: bool = False) -> bytes:
    """An archive with a strange entry, or with fields of its records changed, or with changed bytes."""
    stream = io.BytesIO()
    kind = rng.random()
    with zipfile.ZipFile(
        stream, "w", zipfile.ZIP_STORED if stored else rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    ) as packed:
        for name, content in files.items():
            packed.writestr(zipfile.ZipInfo(name), content, packed.compression)  # not the time of now
        if kind < 0.35:
            entry = zipfile.ZipInfo(rng.choice(_NAMES))
            entry.external_attr = rng.choice(_MODES) << 16
            entry.compress_type = rng.choice(
                (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
            )
            packed.writestr(entry, rng.choice((b"", b"x", b"../../target", bytes(3 << 20))))
        if kind < 0.05:
            packed.comment = rng.randbytes(200)
    data = bytearray(stream.getvalue())
    if 0.35 <= kind < 0.75:
        for _ in range(rng.choice((1, 1, 2, 3))):
            _change_record(rng, data)
    elif kind >= 0.75:
        return mutated(rng, bytes(data))
    return bytes(data)


_RECORDS = {
    b"PK\x03\x04": {"H": (4, 6, 8, 10, 26, 28), "I": (14, 18, 22)},
    b"PK\x01\x02": {"H": (4, 6, 8, 10, 28, 30, 32, 34, 36), "I": (16, 20, 24, 38, 42)},
    b"PK\x05\x06": {"H": (4, 6, 8, 10, 20), "I": (12, 16)},
}
"""Signature -> code -> offsets of the numbers in a record (APPNOTE.TXT 4.3)."""


def _change_record(rng: random.Random, data: bytearray) -> None:
    signature = rng.choice(tuple(_RECORDS))
    places, position = [], data.find(signature)
    while position >= 0:
        places.append(position)
        position = data.find(signature, position + 4)
    if not places:
        return
    code = rng.choice("HI")
    at = rng.choice(places) + rng.choice(_RECORDS[signature][code])
    packed = number_bytes(rng, f"<{code}")
    if at + len(packed) <= len(data):
        data[at : at + len(packed)] = packed
