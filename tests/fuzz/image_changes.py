"""Changes that know the format: header fields, lines, chunks and directory entries."""

from __future__ import annotations

import gzip
import random
import re
import struct
import zlib
from collections.abc import Callable, Sequence

from tests.fuzz.image_files import png_of
from tests.fuzz.mutations import mutated, number_bytes

Mutate = Callable[[random.Random, bytes, Sequence[bytes]], bytes]

_NIFTI_FIELDS = {
    "i": (0, 32), "h": (40, 42, 44, 46, 48, 50, 68, 70, 72, 74, 252, 254),
    "f": (76, 80, 84, 88, 92, 108, 112, 116, 256, 260, 264, 268, 272, 276, *range(280, 328, 4)), "B": (39, 123),
}  # fmt: skip


def mutated_nifti(rng: random.Random, content: bytes, others: Sequence[bytes]) -> bytes:
    if rng.random() < 0.35:
        return mutated(rng, content, others)
    data = bytearray(content)
    endian = ">" if data[:2] == b"\0\0" else "<"
    for _ in range(rng.choice((1, 1, 2, 3))):
        code = rng.choice(tuple(_NIFTI_FIELDS))
        packed = number_bytes(rng, endian + code)
        position = rng.choice(_NIFTI_FIELDS[code])
        data[position : position + len(packed)] = packed
    if rng.random() < 0.1:
        del data[rng.randrange(len(data)) :]
    return bytes(data)


def mutated_gzip(inner: Mutate, rng: random.Random, content: bytes, others: Sequence[bytes]) -> bytes:
    """The content changed and packed again; or the packed bytes; or another packing of them."""
    kind = rng.random()
    if kind < 0.6:
        return gzip.compress(inner(rng, content, others), 1, mtime=0)
    packed = gzip.compress(content, 1, mtime=0)
    if kind < 0.9:
        return mutated(rng, packed)
    if kind < 0.95:
        return packed + rng.choice((packed, b"\0" * 100, b"\x1f\x8b", gzip.compress(b"\0" * 10**6)))
    bomb = content[:352] + bytes(rng.choice((10**6, 2 * 10**7)))
    return gzip.compress(bomb, 9, mtime=0)


def mutated_text_header(rng: random.Random, content: bytes, others: Sequence[bytes]) -> bytes:
    """NRRD and MetaImage: lines of the header removed, repeated, or with other values."""
    if rng.random() < 0.35:
        return mutated(rng, content, others)
    separator = b"\n\n" if content.startswith(b"NRRD") else b"LOCAL\n"
    head, found, body = content.partition(separator)
    lines = head.split(b"\n")
    for _ in range(rng.choice((1, 1, 2, 3))):
        place = rng.randrange(len(lines))
        choice = rng.randrange(8)
        if choice == 0 and len(lines) > 1:
            del lines[place]
        elif choice == 1:
            lines.insert(place, rng.choice(lines))
        elif choice == 2:
            lines.insert(place, rng.choice(_HEADER_LINES))
        elif choice == 3:
            lines[place] = mutated(rng, lines[place])
        else:
            lines[place] = _other_values(rng, lines[place])
    if rng.random() < 0.1:
        body = mutated(rng, body)
    return b"\n".join(lines) + found + body


_HEADER_LINES = (
    b"data file: ../../secret.raw", b"encoding: gzip", b"encoding: raw", b"encoding: bzip2", b"endian: big",
    b"byte skip: -1", b"line skip: 1000000", b"kinds: domain domain list", b"content: " + b"x" * 5000,
    b"# " + b"y" * 70000,
    b"CompressedData = True", b"CompressedDataSize = 10", b"HeaderSize = -1", b"HeaderSize = 99999",
    b"ElementNumberOfChannels = 100000",
    b"ElementDataFile = ../../secret.raw", b"ElementDataFile = LIST", b"BinaryDataByteOrderMSB = True", b"NDims = 10",
    b"ObjectType = Tube", b"space: scanner-xyz-time", b"measurement frame: (1,0,0) (0,1,0) (0,0,1)", b"a:=b",
)  # fmt: skip
_HEADER_VALUES = (
    b"0", b"-1", b"1", b"3", b"100", b"65536", b"2147483647", b"4294967296", b"9223372036854775807", b"1e30", b"1e-30",
    b"nan", b"inf", b"-inf", b"1e999", b"", b"x", b"none", b"(1,0,0)", b"(nan,nan,nan)", b"uchar", b"double", b"block",
    b"MET_DOUBLE", b"MET_UCHAR_ARRAY", b"True", b"gzip", b"raw", b"ascii", b"hex",
)  # fmt: skip


def _other_values(rng: random.Random, line: bytes) -> bytes:
    """One of a header line's values exchanged."""
    name, mark, values = line.partition(b":" if b":" in line else b"=")
    words = re.split(rb"([ ,()]+)", values)
    words[rng.randrange(len(words))] = rng.choice(_HEADER_VALUES)
    return name + mark + b"".join(words)


def mutated_png(rng: random.Random, content: bytes, others: Sequence[bytes]) -> bytes:
    """Chunks changed, with right checksums, so that the change gets past the first check."""
    if rng.random() < 0.35:
        return mutated(rng, content, others)
    chunks, position = [], 8
    while position + 8 <= len(content):
        length, kind = struct.unpack(">I4s", content[position : position + 8])
        chunks.append((kind, content[position + 8 : position + 8 + length]))
        position += 12 + length
    for _ in range(rng.choice((1, 1, 2))):
        place = rng.randrange(len(chunks))
        kind, body = chunks[place]
        choice = rng.randrange(7)
        if choice == 0:
            chunks[place] = (kind, mutated(rng, body))
        elif choice == 1:
            chunks.insert(place, rng.choice(chunks))
        elif choice == 2 and len(chunks) > 1:
            del chunks[place]
        elif choice == 3:
            chunks.insert(
                place,
                (
                    rng.choice((b"tRNS", b"gAMA", b"iCCP", b"zTXt", b"sBIT", b"PLTE", b"acTL", b"eXIf")),
                    rng.randbytes(9),
                ),
            )
        elif kind == b"IHDR" or choice == 4:
            head = bytearray(chunks[0][1])
            if len(head) == 13:
                at, code = rng.choice(((0, ">I"), (4, ">I"), (8, ">B"), (9, ">B"), (10, ">B"), (11, ">B"), (12, ">B")))
                packed = number_bytes(rng, code)
                head[at : at + len(packed)] = packed
                chunks[0] = (chunks[0][0], bytes(head))
        elif kind == b"IDAT":
            try:
                raw = zlib.decompress(body)
            except zlib.error:
                raw = b""
            chunks[place] = (kind, zlib.compress(mutated(rng, raw)))
    return png_of(chunks)


_TIFF_TAGS = (
    254, 256, 257, 258, 259, 262, 266, 269, 270, 273, 274, 277, 278, 279, 282, 284, 306, 317, 320, 322, 323, 324,
    325, 330,
    338, 339, 347, 530, 33922, 34665, 50838, 50839, 65000,
)  # fmt: skip


def mutated_tiff(rng: random.Random, content: bytes, others: Sequence[bytes]) -> bytes:
    """Entries of the first directory changed: tag, type, count or value."""
    if rng.random() < 0.35 or content[2:4] not in (b"*\0", b"\0*"):
        return mutated(rng, content, others)
    data, endian = bytearray(content), "<" if content[:2] == b"II" else ">"
    start = struct.unpack_from(f"{endian}I", data, 4)[0]
    count = struct.unpack_from(f"{endian}H", data, start)[0] if start + 2 <= len(data) else 0
    for _ in range(rng.choice((1, 1, 2, 3))):
        entry = start + 2 + 12 * rng.randrange(max(count, 1))
        if entry + 12 > len(data):
            break
        choice = rng.randrange(6)
        if choice == 0:
            struct.pack_into(f"{endian}H", data, entry, rng.choice(_TIFF_TAGS))
        elif choice == 1:
            struct.pack_into(f"{endian}H", data, entry + 2, rng.choice((0, 1, 2, 3, 4, 5, 7, 9, 11, 12, 16, 99)))
        elif choice == 2:
            data[entry + 4 : entry + 8] = number_bytes(rng, f"{endian}I")
        elif choice == 3:
            data[start : start + 2] = number_bytes(rng, f"{endian}H")
        elif choice == 4:  # the next directory: a circle, or nowhere
            at = start + 2 + 12 * count
            data[at : at + 4] = rng.choice((struct.pack(f"{endian}I", start), number_bytes(rng, f"{endian}I")))
        else:
            data[entry + 8 : entry + 12] = number_bytes(rng, f"{endian}I")
    return bytes(data)
